"""Rounding of weights to 8 bits, for int8 arithmetic and for storage.

x86 processors without VNNI add the products of two neighbouring inputs in 16 bits, where they saturate: an input is up
to 255 there, so that two neighbouring weights of one sign must not add up to more than 128. The scales are chosen such
that they don't. For the weights of a trained network that costs little, since two large ones are seldom neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = "scale"
# Weights that are stored in 8 bits and computed with in float32 share a scale in groups of so many.
GROUP = 16
_LARGEST = 127
_LARGEST_PAIR = 32767 // 255


def rounded_weights(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights [..., outputs, inputs] to int8.

    Returns:
        The integers, and the scale [..., outputs] of each output's weights.
    """
    limits = np.maximum(np.abs(rows).max(axis=-1) / _LARGEST, _largest_pair(rows) / (_LARGEST_PAIR - 1))
    scales = np.where(limits > 0, limits, 1).astype(np.float32)
    return np.rint(rows / scales[..., None]).astype(np.int8), scales


def rounded_groups(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Round a weight, whose size is a multiple of GROUP, to int8 [groups, GROUP].

    Returns:
        The integers, and the scale [groups, 1] of each group.
    """
    groups = weight.reshape(-1, GROUP)
    scales = (np.abs(groups).max(axis=1, keepdims=True) / _LARGEST).astype(np.float16)
    scales[scales == 0] = np.finfo(np.float16).smallest_subnormal
    rounded = np.rint(groups / scales.astype(np.float32))
    return np.clip(rounded, -_LARGEST, _LARGEST).astype(np.int8), scales


def _largest_pair(rows: NDArray[np.float32]) -> NDArray[Any]:
    """Return the largest sum of two neighbours of one sign in each row, wherever the pairs begin."""
    padded = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, 1)])
    sums = [np.maximum(part, 0) for part in (padded, -padded)]
    largest: NDArray[Any] = np.maximum(*[(part[..., :-1] + part[..., 1:]).max(axis=-1) for part in sums])
    return largest
