"""Discriminators of waveforms: multi-period, multi-scale and multi-scale STFT.

They are from HiFi-GAN (arXiv 2010.05646, section 2.3), MelGAN (arXiv 1910.06711; with HiFi-GAN's layers) and EnCodec
(arXiv 2210.13438, section 3.4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from .config import DiscriminatorConfig

SLOPE = 0.1  # of the leaky ReLU, periods and scales
STFT_SLOPE = 0.2
PERIOD_CHANNELS = (32, 128, 512, 1024, 1024)
# (channels, kernel size, stride, groups) of each layer
SCALE_LAYERS = (
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)


@dataclasses.dataclass(frozen=True)
class DiscriminatorOutput:
    """Output of several discriminators: of each, its `scores` (any shape; 1 is real) and feature maps, by layer."""

    scores: list[Tensor]
    feature_maps: list[list[Tensor]]

    def __add__(self, other: DiscriminatorOutput) -> DiscriminatorOutput:
        return DiscriminatorOutput(self.scores + other.scores, self.feature_maps + other.feature_maps)


class Discriminators(nn.Module):
    """All discriminators of a configuration: waveforms [B, 1, samples] -> scores and feature maps."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.families = nn.ModuleList()
        if config.periods:
            self.families.append(MultiPeriodDiscriminator(config.periods, config.width))
        if config.scales:
            self.families.append(MultiScaleDiscriminator(config.scales, config.width))
        if config.stft_n_fft:
            self.families.append(MultiScaleSTFTDiscriminator(config.stft_n_fft, config.stft_filters))

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        found = DiscriminatorOutput([], [])
        for family in self.families:
            found = found + family(waveform)
        return found


class PeriodDiscriminator(nn.Module):
    """Convolutions along time over a [samples / period, period] view, whose columns hold every `period`-th sample."""

    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *(scaled_channels(full, width) for full in PERIOD_CHANNELS)]
        strides = (3, 3, 3, 3, 1)
        self.convolutions = nn.ModuleList(
            normalised(nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0)))
            for before, after, stride in zip(sizes, sizes[1:], strides, strict=False)
        )
        self.last = normalised(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        missing = -waveform.shape[-1] % self.period
        x = F.pad(waveform, (0, missing), mode="reflect").unflatten(-1, (-1, self.period))
        maps = []
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
            maps.append(x)
        maps.append(self.last(x))
        return maps[-1], maps


class MultiPeriodDiscriminator(nn.Module):
    """One discriminator per period: waveforms [B, 1, samples] -> scores and feature maps."""

    def __init__(self, periods: Sequence[int], width: float = 1.0) -> None:
        super().__init__()
        self.parts = nn.ModuleList(PeriodDiscriminator(period, width) for period in periods)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        outputs = [part(waveform) for part in self.parts]
        return DiscriminatorOutput([score for score, _ in outputs], [maps for _, maps in outputs])


class ScaleDiscriminator(nn.Module):
    """Grouped, strided convolutions over the waveform."""

    def __init__(self, width: float, spectral: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        before = 1
        for full, kernel_size, stride, groups in SCALE_LAYERS:
            after = scaled_channels(full, width, 16)
            conv = nn.Conv1d(before, after, kernel_size, stride, padding=kernel_size // 2, groups=groups)
            self.convolutions.append(normalised(conv, spectral))
            before = after
        self.last = normalised(nn.Conv1d(before, 1, 3, padding=1), spectral)

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, maps = waveform, []
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
            maps.append(x)
        maps.append(self.last(x))
        return maps[-1], maps


class MultiScaleDiscriminator(nn.Module):
    """One discriminator per sample rate: waveforms [B, 1, samples] -> scores and feature maps.

    The rates are the full one, half, a quarter, ... The first discriminator has spectral normalisation.
    """

    def __init__(self, scales: int, width: float = 1.0) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ScaleDiscriminator(width, spectral=scale == 0) for scale in range(scales))

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        scores, feature_maps = [], []
        for index, part in enumerate(self.parts):
            if index > 0:
                waveform = F.avg_pool1d(waveform, kernel_size=4, stride=2, padding=2)
            score, maps = part(waveform)
            scores.append(score)
            feature_maps.append(maps)
        return DiscriminatorOutput(scores, feature_maps)


class STFTDiscriminator(nn.Module):
    """Convolutions over the complex spectrogram, with real and imaginary part as two channels [B, 2, frames, bins]."""

    window: Tensor

    def __init__(self, n_fft: int, filters: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.convolutions = nn.ModuleList([normalised(nn.Conv2d(2, filters, (3, 9), padding=(1, 4)))])
        for dilation in (1, 2, 4):
            conv = nn.Conv2d(filters, filters, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1))
            self.convolutions.append(normalised(conv))
        self.convolutions.append(normalised(nn.Conv2d(filters, filters, (3, 3), padding=(1, 1))))
        self.last = normalised(nn.Conv2d(filters, 1, (3, 3), padding=(1, 1)))

    def forward(self, waveform: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum = torch.stft(
            waveform[:, 0].float(), self.n_fft, self.n_fft // 4, window=self.window, center=False, return_complex=True
        )
        # Divided by the window's energy, so that the magnitudes of all scales are alike.
        spectrum = spectrum / self.window.square().sum().sqrt()
        x, maps = torch.stack([spectrum.real, spectrum.imag], dim=1).transpose(2, 3), []
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), STFT_SLOPE)
            maps.append(x)
        return self.last(x), maps


class MultiScaleSTFTDiscriminator(nn.Module):
    """One discriminator per window length: waveforms [B, 1, samples] -> scores and feature maps."""

    def __init__(self, n_ffts: Sequence[int], filters: int = 32) -> None:
        super().__init__()
        self.parts = nn.ModuleList(STFTDiscriminator(n_fft, filters) for n_fft in n_ffts)

    def forward(self, waveform: Tensor) -> DiscriminatorOutput:
        outputs = [part(waveform) for part in self.parts]
        return DiscriminatorOutput([score for score, _ in outputs], [maps for _, maps in outputs])


def normalised(conv: nn.Module, spectral: bool = False) -> nn.Module:
    """Return the convolution with weight normalisation, or with spectral normalisation."""
    return spectral_norm(conv) if spectral else weight_norm(conv)


def scaled_channels(full: int, width: float, multiple_of: int = 1) -> int:
    """Return `full` channels scaled by `width`, at least one, and a multiple of the number of groups."""
    return max(1, round(full * width / multiple_of)) * multiple_of
