"""Batches: which clips run together. This file alone decides the shapes that graphs are run with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

WHOLE_S = 30.0  # clips up to this length run in one piece, longer ones in windows (encoding) or as a stream (decoding)
WINDOW_S = 15.0  # of a window without its context, and of the part of a long clip that one decoding step covers
WINDOWS_PER_BATCH = 4
TILE_FRAMES = 100  # of the exact encoder's convolutions: the context of a tile is 3 % of it
BLOCK_FRAMES = 250  # of its LSTM, and of what follows that
TILED_S = 2.0  # a single clip from this length on is encoded in tiles: as fast on one thread, faster on several
# Most of batch size x longest clip, summed over concurrent batches. It bounds the memory: at full size, encoding takes
# about 20 MB and decoding about 45 MB for each second.
ENCODE_TOTAL_S = 64.0
DECODE_TOTAL_S = 32.0
MAX_BATCH_SIZE = 16
# Largest ratio of longest to shortest clip in a batch. Above it, the padding costs more time than batching saves.
_MAX_LENGTH_RATIO = 1.15


def batches(lengths: Sequence[int], max_total: int, concurrent: int = 1) -> Iterator[list[int]]:
    """Group clips into batches.

    Args:
        lengths: of the clips, in any unit.
        max_total: most of batch size x longest clip, summed over concurrent batches. A longer clip runs alone.
        concurrent: batches that run at the same time; clips are spread so that these have about the same work.

    Yields:
        Indices of the clips of a batch: at most MAX_BATCH_SIZE, with lengths within 15 % of each other.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    rounds = -(-sum(lengths) // max_total)
    size = min(MAX_BATCH_SIZE, max(1, -(-len(lengths) // max(1, rounds * concurrent))))
    batch: list[int] = []
    for index in order:
        length = lengths[index]
        fits = len(batch) < size and (len(batch) + 1) * length <= max_total // concurrent
        if batch and not (fits and length <= lengths[batch[0]] * _MAX_LENGTH_RATIO):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def stack(arrays: Sequence[NDArray[np.generic]]) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Stack arrays [..., T] of different T into one array [batch, ..., longest T], zero-padded at the end.

    Returns:
        The array, and the lengths T [batch].
    """
    lengths = np.array([array.shape[-1] for array in arrays], np.int64)
    longest = int(lengths.max())
    stacked = np.zeros((len(arrays), *arrays[0].shape[:-1], longest), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[..., : array.shape[-1]] = array
    return stacked, lengths
