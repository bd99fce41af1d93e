"""The consistency loss: latents of a slice of speech, its phases perturbed, compared with those within the whole.

Liu et al., arXiv 2409.19283, section 4 (slice consistency and perturbation consistency, applied together).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .batches import Batch
from .config import ConsistencyConfig

N_FFT, HOP = 512, 128


def consistency_loss(
    encoder: Callable[[Tensor], Tensor], batch: Batch, latents: Tensor, hop_length: int, config: ConsistencyConfig
) -> Tensor:
    """Return the mean squared difference of the latents of slices and those of the same frames of the whole segments.

    Each segment gives one slice at a random frame. All slices have the same length: `slice_share` of the shortest
    segment's frames, at least one. Both sides have a gradient.

    Args:
        encoder: maps waveforms [B, 1, samples] to latents [B, D, frames].
        batch: of segments.
        latents: [B, D, frames] of the batch, of any floating type.
        hop_length: samples per frame.
        config: length of slices, and the perturbation.
    """
    shortest = int(batch.num_frames.min())
    frames = max(1, round(config.slice_share * shortest))
    # On the CPU, so that a run takes the same slices on every device.
    starts = [int(torch.randint(count - frames + 1, ())) for count in batch.num_frames.tolist()]
    padded = F.pad(batch.waveform, (0, hop_length))  # the last frame of a segment may be shorter than a hop
    slices = torch.stack([
        row[:, start * hop_length : (start + frames) * hop_length] for row, start in zip(padded, starts, strict=True)
    ])  # fmt: skip
    of_slices = encoder(perturb_phases(slices, config.phase_rad))
    whole = torch.stack([row[:, start : start + frames] for row, start in zip(latents, starts, strict=True)])
    return F.mse_loss(of_slices.float(), whole.float())


def perturb_phases(waveform: Tensor, most_rad: float) -> Tensor:
    """Turn the phase of each point of the short-time spectrum of [B, 1, samples] by up to `most_rad`, at random.

    Hann windows of 512 samples, a quarter of it apart; magnitudes before resynthesis stay as they are.
    """
    if most_rad == 0:
        return waveform
    window = torch.hann_window(N_FFT, device=waveform.device)
    spectrum = torch.stft(waveform[:, 0].float(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    angles = (2 * torch.rand(spectrum.shape, device=waveform.device) - 1) * most_rad
    turned = torch.istft(
        spectrum * torch.polar(torch.ones_like(angles), angles), N_FFT, HOP, window=window, length=waveform.shape[-1]
    )
    return turned[:, None].to(waveform.dtype)
