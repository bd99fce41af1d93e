"""The generator's and the discriminators' losses, apart from commitment (quantizer) and distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmcodec.training.config import MelScaleConfig
from dmcodec.training.mel import LogMel


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
