"""The generator's and the discriminators' losses, apart from commitment (quantizer) and distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.training.config import MelScaleConfig, SpectralConfig
from dmcodec.training.mel import LogMel

FAINTEST = 1e-3


class MelLoss(nn.Module):
    """Weighted sum over scales of the mean absolute difference of log-mel spectrograms of waveforms [B, samples]."""

    def __init__(self, scales: Sequence[MelScaleConfig], sample_rate: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(LogMel(scale, sample_rate) for scale in scales)
        self.weights = [scale.weight for scale in scales]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        distances = [
            weight * F.l1_loss(log_mel(output), log_mel(target))
            for weight, log_mel in zip(self.weights, self.scales, strict=True)
        ]
        return torch.stack(distances).sum()

    def first_scale(self, output: Tensor, target: Tensor) -> Tensor:
        """The unweighted distance at the first scale: the figure that picks the best checkpoint."""
        return F.l1_loss(self.scales[0](output), self.scales[0](target))


class SpectralLoss(nn.Module):
    """Weighted sum over spectra of the mean squared difference of compressed spectra of waveforms [B, samples].

    A spectrum's magnitudes are raised to the power of 0.3 or so, as loudness is; one part compares the magnitudes, the
    other one the complex values with their phases as they were (Braun and Tashev, arXiv 2009.12286, section 3).
    Magnitudes far under 1e-3, where the power's slope goes to infinity, are compressed no further.
    """

    def __init__(self, spectra: Sequence[SpectralConfig]) -> None:
        super().__init__()
        self.spectra = tuple(spectra)
        for i, spectrum in enumerate(self.spectra):
            self.register_buffer(f"window_{i}", torch.hann_window(spectrum.n_fft), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        distances = [
            spectrum.weight * self._distance(output, target, spectrum, self.get_buffer(f"window_{i}"))
            for i, spectrum in enumerate(self.spectra)
        ]
        return torch.stack(distances).sum()

    def _distance(self, output: Tensor, target: Tensor, spectrum: SpectralConfig, window: Tensor) -> Tensor:
        (values, magnitudes), (true_values, true_magnitudes) = (
            _compressed(waveform, spectrum, window) for waveform in (output, target)
        )
        complex_distance = (values - true_values).square().sum(-1).mean()
        distance = (magnitudes - true_magnitudes).square().mean()
        return (1 - spectrum.complex_share) * distance + spectrum.complex_share * complex_distance


def _compressed(waveform: Tensor, spectrum: SpectralConfig, window: Tensor) -> tuple[Tensor, Tensor]:
    """Complex values as pairs [B, bins, frames, 2] and magnitudes [B, bins, frames], compressed."""
    values = torch.view_as_real(
        torch.stft(waveform.float(), spectrum.n_fft, spectrum.hop_length, window=window, return_complex=True)
    )
    power = values.square().sum(-1) + FAINTEST**2
    values = values * power[..., None] ** ((spectrum.compression - 1) / 2)
    return values, power ** (spectrum.compression / 2)


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Least squares (Mao et al., arXiv 1611.04076): sum over discriminators of mean (1 - D(x))^2 + mean D(G)^2."""
    losses = [(1 - r.float()).square().mean() + f.float().square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Sum over discriminators of mean (1 - D(G))^2."""
    return torch.stack([(1 - f.float()).square().mean() for f in fake]).sum()


def feature_matching_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Sum over all feature maps of all discriminators of the mean absolute difference; `real` is a constant."""
    losses = [
        F.l1_loss(f.float(), r.detach().float())
        for real_maps, fake_maps in zip(real, fake, strict=True)
        for r, f in zip(real_maps, fake_maps, strict=True)
    ]
    return torch.stack(losses).sum()
