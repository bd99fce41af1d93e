"""What the discriminators share: normalised convolutions and the shape of their answers."""

from __future__ import annotations

import dataclasses

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


@dataclasses.dataclass(frozen=True)
class Judgements:
    """Of each sub-discriminator: its `scores` (any shape, 1 is real) and its feature maps, first layer first."""

    scores: list[Tensor]
    feature_maps: list[list[Tensor]]

    def __add__(self, other: Judgements) -> Judgements:
        return Judgements(self.scores + other.scores, self.feature_maps + other.feature_maps)


def normalised(conv: nn.Module, spectral: bool = False) -> nn.Module:
    """The convolution under weight normalisation, or under spectral normalisation."""
    return spectral_norm(conv) if spectral else weight_norm(conv)


def channels(full: int, width: float, multiple_of: int = 1) -> int:
    """`full` channels scaled by `width`, at least one and a multiple of the groups that share them."""
    return max(1, round(full * width / multiple_of)) * multiple_of
