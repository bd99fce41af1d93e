"""The generator: a codec in training, with moving codebooks and the features for distillation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dmcodec.nn import DMCodec

from .batches import Batch
from .config import TrainingConfig
from .consistency import consistency_loss
from .quantizer import quantize


@dataclasses.dataclass(frozen=True)
class GeneratorOutput:
    """Output of the generator for a batch.

    Attributes:
        waveform: [B, 1, samples], zero beyond the end of each item.
        commitment: the commitment loss, a scalar.
        codes: [n_q, B, frames].
        features: by kind of teacher, [B, frames, width]; compared with the teacher's features.
        consistency: the consistency loss, a scalar; None where its weight is 0.
    """

    waveform: Tensor
    commitment: Tensor
    codes: Tensor
    features: Mapping[str, Tensor]
    consistency: Tensor | None = None


class Generator(nn.Module):
    """A codec, and projections to the widths of the teachers.

    Args:
        codec: trained in place.
        config: of the run.
        teacher_widths: by kind of teacher. A width other than the codec's semantic_dimension gets a linear projection
            after `transform`, which is not part of the codec and not exported.
    """

    def __init__(self, codec: DMCodec, config: TrainingConfig, teacher_widths: Mapping[str, int]) -> None:
        super().__init__()
        self.codec = codec
        self.config = config
        width = config.codec.semantic_dimension
        self.projections = nn.ModuleDict(
            {kind: nn.Linear(width, other) for kind, other in teacher_widths.items() if other != width}
        )
        if not teacher_widths:
            codec.transform.requires_grad_(False)

    def forward(self, batch: Batch, codebook_step: int) -> GeneratorOutput:
        latents = self.codec.encoder(batch.waveform)
        with torch.autocast(latents.device.type, enabled=False):  # half precision flips codes
            quantized = quantize(
                self.codec.quantizer, latents.float(), batch.frame_mask(), self.config.quantizer, codebook_step
            )
        waveform = self.codec.decoder(quantized.latents)[..., : batch.waveform.shape[-1]]
        features = {kind: self._features(kind, quantized.levels) for kind in batch.teachers}
        return GeneratorOutput(
            waveform * batch.sample_mask(),
            quantized.commitment,
            quantized.codes,
            features,
            self._consistency(batch, latents) if self.config.consistency.weight else None,
        )

    def _consistency(self, batch: Batch, latents: Tensor) -> Tensor:
        config = self.config
        return consistency_loss(self.codec.encoder, batch, latents, config.codec.hop_length, config.consistency)

    def _features(self, kind: str, levels: list[Tensor]) -> Tensor:
        features = self.codec.transform(levels[self.config.distillation.level_of(kind)])
        return self.projections[kind](features) if kind in self.projections else features
