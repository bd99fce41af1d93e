"""Which clips run together, and at which lengths: the one place that decides the shapes that graphs are run with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

WHOLE_S = 30.0  # clips up to this length run in one piece; longer ones in windows, or as a stream
WINDOW_S = 15.0  # what one window adds, and what a long decode does at a time
WINDOWS_AT_ONCE = 4
ENCODE_TOTAL_S = 64.0  # bound of batch size x longest clip of what runs at once: some 20 MB a second at full size
DECODE_TOTAL_S = 32.0  # likewise, some 45 MB a second
MAX_BATCH_SIZE = 16
_STEP = 1.15  # lengths within one batch: what padding costs must stay below what a batch gains


def batches(lengths: Sequence[int], max_total: int, side_by_side: int = 1) -> Iterator[list[int]]:
    """Indices of clips that run together.

    Args:
        lengths: of the clips.
        max_total: bounds batch size x longest length of what runs at once, and with it the memory; a longer clip runs
            alone.
        side_by_side: how many batches run at once; clips are spread so that all of them have about as much to do.

    Yields:
        At most MAX_BATCH_SIZE indices, whose lengths are within 15 % of each other.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    turns = -(-sum(lengths) // max_total)
    size = min(MAX_BATCH_SIZE, max(1, -(-len(lengths) // max(1, turns * side_by_side))))
    group: list[int] = []
    for index in order:
        length = lengths[index]
        fits = len(group) < size and (len(group) + 1) * length <= max_total // side_by_side
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
