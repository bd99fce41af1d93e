"""The three families of discriminators, as one module."""

from __future__ import annotations

from torch import Tensor, nn

from dmcodec.training.config import DiscriminatorConfig
from dmcodec.training.discriminators.layers import Judgements
from dmcodec.training.discriminators.period import MultiPeriodDiscriminator
from dmcodec.training.discriminators.scale import MultiScaleDiscriminator
from dmcodec.training.discriminators.stft import MultiScaleSTFTDiscriminator

__all__ = ["Discriminators", "Judgements"]


class Discriminators(nn.Module):
    """All discriminators of a configuration: waveforms [B, 1, samples] -> judgements."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.families = nn.ModuleList()
        if config.periods:
            self.families.append(MultiPeriodDiscriminator(config.periods, config.width))
        if config.scales:
            self.families.append(MultiScaleDiscriminator(config.scales, config.width))
        if config.stft_n_fft:
            self.families.append(MultiScaleSTFTDiscriminator(config.stft_n_fft, config.stft_filters))

    def forward(self, waveform: Tensor) -> Judgements:
        found = Judgements([], [])
        for family in self.families:
            found = found + family(waveform)
        return found
