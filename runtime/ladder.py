"""Which clips run together, and at which lengths: the one place that knows the shapes that graphs are run with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

# Clips on the same rung run in one batch, padded to the longest of them: at most a quarter of a run is padding.
_STEP = 4 / 3
MAX_BATCH_SIZE = 16


def batches(lengths: Sequence[int], max_total: int) -> Iterator[list[int]]:
    """Indices of clips that run together.

    Args:
        lengths: of the clips.
        max_total: bounds batch size x longest length, and with it the memory of a run; a longer clip runs alone.

    Yields:
        At most MAX_BATCH_SIZE indices, whose lengths are within a third of each other.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    group: list[int] = []
    for index in order:
        length = lengths[index]
        fits = len(group) < MAX_BATCH_SIZE and (len(group) + 1) * length <= max_total
        if group and not (fits and length <= lengths[group[0]] * _STEP):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def stack(arrays: Sequence[NDArray[np.generic]]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Arrays [..., T] of different T -> one array [batch, ..., longest T], zeros behind each, and lengths [batch]."""
    lengths = np.array([array.shape[-1] for array in arrays], np.int64)
    longest = int(lengths.max())
    stacked = np.zeros((len(arrays), *arrays[0].shape[:-1], longest), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[..., : array.shape[-1]] = array
    return stacked, lengths
