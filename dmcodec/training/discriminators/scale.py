"""The multi-scale discriminator (MelGAN, arXiv 1910.06711; layers as in HiFi-GAN, arXiv 2010.05646, section 2.3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.training.discriminators.layers import Judgements, channels, normalised

SLOPE = 0.1
# (channels, kernel size, stride, groups) of each layer
LAYERS = (
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)


class ScaleDiscriminator(nn.Module):
    """Grouped, strided convolutions over the waveform itself."""

    def __init__(self, width: float, spectral: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        before = 1
        for full, kernel_size, stride, groups in LAYERS:
            after = channels(full, width, 16)
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
    """Waveforms [B, 1, samples], also at half, a quarter, ... of the rate; the first part is spectral-normalised."""

    def __init__(self, scales: int, width: float = 1.0) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ScaleDiscriminator(width, spectral=scale == 0) for scale in range(scales))

    def forward(self, waveform: Tensor) -> Judgements:
        scores, feature_maps = [], []
        for index, part in enumerate(self.parts):
            if index > 0:
                waveform = F.avg_pool1d(waveform, kernel_size=4, stride=2, padding=2)
            score, maps = part(waveform)
            scores.append(score)
            feature_maps.append(maps)
        return Judgements(scores, feature_maps)
