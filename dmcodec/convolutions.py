"""Padding of the family's convolutions: what a layer adds at both ends, and what a transposed one trims."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class ConvPadding:
    """Padding of a strided, dilated convolution (EnCodec, arXiv 2210.13438).

    `left` and `right` are constants of the layer; `extra(length)` samples more on the right complete the last window. A
    causal layer has all of its constant padding on the left.
    """

    kernel_size: int
    stride: int = 1
    dilation: int = 1
    causal: bool = False

    @property
    def total(self) -> int:
        return (self.kernel_size - 1) * self.dilation - (self.stride - 1)

    @property
    def right(self) -> int:
        return 0 if self.causal else self.total // 2

    @property
    def left(self) -> int:
        return self.total - self.right

    @property
    def most_right(self) -> int:
        """The largest right padding of any length: `right`, and the extra that fills the last window."""
        return self.right + self.stride - 1

    def extra(self, length: int) -> int:
        """Return the padding on the right beyond `right` that completes ceil(length / stride) windows."""
        windows = -(-(length - self.kernel_size + self.total) // self.stride)
        return windows * self.stride + self.kernel_size - self.total - length


@dataclasses.dataclass(frozen=True)
class Trim:
    """Samples that a transposed convolution drops at both ends of its output, so that T steps become T * stride."""

    left: int
    right: int


def trim(kernel_size: int, stride: int, causal: bool, right_ratio: float) -> Trim:
    """Return the trim of a transposed convolution; `right_ratio` is the share of the right side in a causal one."""
    total = kernel_size - stride
    right = math.ceil(total * right_ratio) if causal else total // 2
    return Trim(total - right, right)
