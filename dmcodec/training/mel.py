"""Log-mel spectrograms of the mel loss (HiFi-GAN, arXiv 2010.05646, with the released recipe's constants)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.training.config import MelScaleConfig

FLOOR = 1e-5


class LogMel(nn.Module):
    """Waveforms [B, samples] -> natural-log mel magnitudes [B, n_mels, frames], 0 Hz to half the sample rate.

    Hann window of n_fft samples; reflected by (n_fft - hop_length) / 2 at both ends, so that there is one frame per
    hop; filters on the HTK mel scale with Slaney's area norm; magnitudes floored at 1e-5.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, scale: MelScaleConfig, sample_rate: int) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("filters", mel_filters(scale.n_fft, scale.n_mels, sample_rate), persistent=False)
        self.register_buffer("window", torch.hann_window(scale.n_fft), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        scale = self.scale
        padding = (scale.n_fft - scale.hop_length) // 2
        padded = F.pad(waveform[:, None].float(), (padding, padding), mode="reflect")[:, 0]
        spectrum = torch.stft(
            padded, scale.n_fft, scale.hop_length, window=self.window, center=False, return_complex=True
        )
        # A square root of 0 has no gradient; silence must have one.
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9**2).sqrt()
        return (self.filters @ magnitude).clamp(min=FLOOR).log()


def mel_filters(n_fft: int, n_mels: int, sample_rate: int) -> Tensor:
    """Triangles [n_mels, n_fft // 2 + 1] evenly spaced in mel = 2595 log10(1 + f / 700), each of area 1 in Hz."""
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, 1, n_mels + 2, dtype=torch.float64) * top / 2595) - 1)
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left)).float()
