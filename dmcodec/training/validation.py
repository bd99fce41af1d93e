"""Quality of the codec on the validation segments during training; `dmcodec evaluate` has more metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from dmcodec.codebook_use import perplexity, unused_entries
from dmcodec.nn import DMCodec

from .batches import Batch
from .losses import MelLoss
from .quantizer import sum_over_ranks


@torch.no_grad()
def validate(codec: DMCodec, mel: MelLoss, batches: Iterable[Batch]) -> dict[str, float]:
    """Return mean distances over all segments and processes, and the use of each codebook.

    Returns:
        mel: mean absolute log-mel distance of the first scale; the lowest one selects the best checkpoint.
        waveform: mean absolute difference of samples.
        perplexity_<level>, unused_<level>: 2 to the entropy of the codes of the level, and its unused entries.
    """
    config = codec.config
    counts = torch.zeros(config.n_q, config.codebook_size, device=_device(codec))
    sums = torch.zeros(3, device=_device(codec))
    for waveform in _whole_segments(batches, _device(codec)):
        codes = codec.quantizer.encode(codec.encoder(waveform))
        output = codec.decoder(codec.quantizer.decode(codes))[..., : waveform.shape[-1]]
        distance = mel.first_scale(output[:, 0], waveform[:, 0])
        sums += torch.stack([distance, (output - waveform).abs().mean(), torch.ones_like(distance)])
        for level, row in zip(counts, codes, strict=True):
            level += torch.bincount(row.flatten(), minlength=config.codebook_size)
    mel_sum, waveform_sum, segments = sum_over_ranks(sums).tolist()
    return {"mel": mel_sum / segments, "waveform": waveform_sum / segments, **codebook_use(sum_over_ranks(counts))}


def codebook_use(counts: Tensor) -> dict[str, float]:
    """Perplexity and unused entries of each level, from how often each entry was taken: [n_q, codebook_size]."""
    found = {}
    for level, row in enumerate(counts.cpu().numpy()):
        found[f"perplexity_{level}"] = perplexity(row)
        found[f"unused_{level}"] = float(unused_entries(row))
    return found


def _whole_segments(batches: Iterable[Batch], device: torch.device) -> Iterator[Tensor]:
    """Yield segments one by one, without padding, which would change the codes through the LSTM."""
    for batch in batches:
        for waveform, samples in zip(batch.waveform, batch.num_samples, strict=True):
            yield waveform[None, :, : int(samples)].to(device)


def _device(codec: DMCodec) -> torch.device:
    return next(codec.parameters()).device
