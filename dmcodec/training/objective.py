"""What a batch costs: the losses of the discriminators and of the generator, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dmcodec.training.batches import Batch
from dmcodec.training.config import TrainingConfig
from dmcodec.training.discriminators import Judgements
from dmcodec.training.distillation import cut_to_shorter, feature_axis_loss, teacher_mask, time_axis_loss
from dmcodec.training.generator import GeneratorOutput
from dmcodec.training.losses import (
    MelLoss,
    SpectralLoss,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)


class Objective(nn.Module):
    """The losses of a configuration (paper, section 3.3 and appendix; weights in `TrainingConfig.losses`)."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = MelLoss(config.losses.mel, config.codec.sample_rate)
        self.spectral = SpectralLoss(config.losses.spectral) if config.losses.spectral else None

    def discriminators(self, discriminators: nn.Module, batch: Batch, output: GeneratorOutput) -> Tensor:
        """The discriminators' loss; the generator gets no gradient from it."""
        # One call for real and fake: a DistributedDataParallel module wants one forward for each backward.
        judged: Judgements = discriminators(torch.cat([batch.waveform, output.waveform.detach().float()]))
        real, fake = zip(*(score.chunk(2) for score in judged.scores), strict=True)
        return discriminator_loss(real, fake)

    def generator(
        self, discriminators: nn.Module | None, batch: Batch, output: GeneratorOutput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and its unweighted terms. `discriminators` must be frozen; None: they don't count yet."""
        waveform, target = output.waveform.float(), batch.waveform
        weights = self.config.losses
        terms = {
            "waveform": (waveform - target).abs().sum() / batch.num_samples.sum(),
            "mel": self.mel(waveform[:, 0], target[:, 0]),
            "commitment": output.commitment,
        }
        total = weights.waveform * terms["waveform"] + terms["mel"] + weights.commitment * terms["commitment"]
        if self.spectral is not None:
            terms["spectral"] = self.spectral(waveform[:, 0], target[:, 0])
            total = total + terms["spectral"]
        distillation = self.config.distillation
        for kind, features in output.features.items():
            terms[f"distillation_{kind}"] = self._distillation(features.float(), batch.teachers[kind], batch)
            share = distillation.weight_of(kind)
            total = total + weights.distillation * share * terms[f"distillation_{kind}"]
        if discriminators is not None:
            with torch.no_grad():
                real: Judgements = discriminators(target)
            fake: Judgements = discriminators(waveform)
            terms["adversarial"] = adversarial_loss(fake.scores)
            terms["feature_matching"] = feature_matching_loss(real.feature_maps, fake.feature_maps)
            total = total + weights.adversarial * terms["adversarial"]
            total = total + weights.feature_matching * terms["feature_matching"]
        return total, terms

    def _distillation(self, features: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        features, teacher, mask = cut_to_shorter(features, teacher, batch.frame_mask())
        mask = teacher_mask(mask, teacher)
        if not mask.any():  # aligned transcripts of a batch without a word
            return features.sum() * 0.0
        if self.config.distillation.axis == "time":
            return time_axis_loss(features, teacher, mask, self.config.distillation.time_lambda)
        return feature_axis_loss(features, teacher, mask)
