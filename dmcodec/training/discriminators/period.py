"""The multi-period discriminator (HiFi-GAN, arXiv 2010.05646, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.training.discriminators.layers import Judgements, channels, normalised

SLOPE = 0.1
CHANNELS = (32, 128, 512, 1024, 1024)


class PeriodDiscriminator(nn.Module):
    """Convolutions along time over a [samples / period, period] view: a column holds every `period`-th sample."""

    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *(channels(full, width) for full in CHANNELS)]
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
    """One discriminator per period: waveforms [B, 1, samples] -> judgements."""

    def __init__(self, periods: Sequence[int], width: float = 1.0) -> None:
        super().__init__()
        self.parts = nn.ModuleList(PeriodDiscriminator(period, width) for period in periods)

    def forward(self, waveform: Tensor) -> Judgements:
        answers = [part(waveform) for part in self.parts]
        return Judgements([score for score, _ in answers], [maps for _, maps in answers])
