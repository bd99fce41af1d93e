"""Batches: which clips run together. This file alone decides the shapes that graphs are run with."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError
from dmcodec.tokens import Tokens

_Result = TypeVar("_Result")

WHOLE_S = 30.0  # clips up to this length run in one piece, longer ones in windows (encoding) or as a stream (decoding)
WINDOW_S = 15.0  # of a window without its context, and of the part of a long clip that one decoding step covers
WINDOWS_PER_BATCH = 4
TILE_FRAMES = 100  # of the exact encoder's convolutions: what a tile computes again is 3 % of it
BLOCK_FRAMES = 250  # of its LSTM, and of what follows that
TILED_S = 2.0  # a single clip from this length on is encoded in tiles; in shorter ones most of the tiles are ends
# Weights of an LSTM's two directions, in bytes, from which on they run one after the other on all threads: together
# they would not stay in the cache that the cores share, from which each frame reads them again.
SHARED_CACHE_BYTES = 16 << 20
# Most of batch size x longest clip, summed over the concurrent batches of a call, for any number of threads. It bounds
# the memory: at full size, encoding takes about 20 MB and decoding about 45 MB for each second.
ENCODE_TOTAL_S = 64.0
DECODE_TOTAL_S = 32.0
MAX_BATCH_SIZE = 16
# Where fewer batches than this fit into the total at a time, they run one by one on all threads. (An estimate: a graph
# on many threads is at most about four times as fast as on one.)
_MIN_CONCURRENT = 4
# Largest ratio of longest to shortest clip in a batch. Above it, the padding costs more time than batching saves. On a
# GPU, whose time grows less with the size, it is larger (an estimate; not measured on a GPU).
_MAX_LENGTH_RATIO = 1.15
_GPU_LENGTH_RATIO = 1.5
# On a GPU: the share of the free memory that the concurrent batches of a call may take, and the memory of a second of
# audio at 64 filters (those of ENCODE_TOTAL_S and DECODE_TOTAL_S, measured on the CPU). Two batches run at the same
# time, each on its own CUDA stream, so that the copies of one overlap the work of the other.
_GPU_SHARE = 0.5
_ENCODE_BYTES_PER_S, _DECODE_BYTES_PER_S, _MEASURED_FILTERS = 20e6, 45e6, 64
GPU_CONCURRENT = 2
GPU_MAX_BATCH = 64  # of ONNX Runtime, whose graphs take any number


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of the batches of a call.

    Attributes:
        total: most of batch size x longest clip, summed over the concurrent batches, in samples.
        concurrent: batches that run at the same time.
        max_batch: most clips in a batch, for a length of the longest in samples.
        max_ratio: largest ratio of longest to shortest clip in a batch.
    """

    total: int
    concurrent: int
    max_batch: Callable[[int], int] = lambda _length: MAX_BATCH_SIZE
    max_ratio: float = _MAX_LENGTH_RATIO


def gpu_limits(
    config: CodecConfig, graph: str, free_bytes: int, most: Callable[[str, int], int], concurrent: int = GPU_CONCURRENT
) -> Limits:
    """Return the limits of batches on a GPU.

    Args:
        config: of the codec.
        graph: "encoder" or "decoder".
        free_bytes: memory that is left on the GPU.
        most: returns how many items of a length, in samples or frames, the graph can run at once.
        concurrent: batches that run at the same time.
    """
    bytes_per_s = _ENCODE_BYTES_PER_S if graph == "encoder" else _DECODE_BYTES_PER_S
    bytes_per_s *= config.n_filters / _MEASURED_FILTERS
    total = max(1, round(_GPU_SHARE * free_bytes / bytes_per_s * config.sample_rate))

    def max_batch(num_samples: int) -> int:
        length = num_samples if graph == "encoder" else config.num_frames(num_samples)
        return max(1, most(graph, length))  # what no engine runs is an error of its own, with its shape

    return Limits(total, concurrent, max_batch, _GPU_LENGTH_RATIO)


def tile_frames(num_frames: int) -> int:
    """Return the frames of a tile of a clip, whose length is 0 where it is not known.

    Their number is a multiple of four, or two for a short clip, so that threads end at the same time. It does not
    depend on the number of threads, on which rounding would then depend.
    """
    if not num_frames:
        return TILE_FRAMES
    tiles = 4 * max(1, round(num_frames / (4 * TILE_FRAMES))) if num_frames >= 2 * TILE_FRAMES else 2
    return -(-num_frames // tiles)


def batches(lengths: Sequence[int], limits: Limits) -> Iterator[list[int]]:
    """Group clips into batches.

    Args:
        lengths: of the clips, in the unit of `limits.total`.
        limits: of the batches. A clip longer than the total runs alone. Clips are spread so that concurrent batches
            have about the same work.

    Yields:
        Indices of the clips of a batch, whose lengths are similar.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    rounds = -(-sum(lengths) // limits.total)
    size = max(1, -(-len(lengths) // max(1, rounds * limits.concurrent)))
    batch: list[int] = []
    for index in order:
        length = lengths[index]
        fits = len(batch) < min(size, limits.max_batch(length))
        fits = fits and (len(batch) + 1) * length <= limits.total // limits.concurrent
        if batch and not (fits and length <= lengths[batch[0]] * limits.max_ratio):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def runs_alone(size: int, max_total: int, concurrent: int) -> bool:
    """Return whether a batch of this size runs on all threads, one at a time: too few such batches run concurrently.

    Args:
        size: batch size x longest clip.
        max_total: most of it over concurrent batches.
        concurrent: batches that could run at the same time.
    """
    return max_total // max(1, size) < min(concurrent, _MIN_CONCURRENT)


def run_within(run: Callable[[int], _Result], sizes: Sequence[int], max_total: int, concurrent: int) -> list[_Result]:
    """Call run(index) for each of `sizes` in up to `concurrent` threads; return the results in order.

    The sizes of the calls that run at the same time sum up to `max_total` at most; a larger one runs alone. They begin
    in order. After an error no further call begins.
    """
    budget, failed = Budget(max_total), threading.Event()

    def call(index: int) -> _Result:
        with budget.given_back(sizes[index]):
            try:
                return run(index)
            except BaseException:
                failed.set()
                raise

    futures = []
    with ThreadPoolExecutor(concurrent) as pool:
        for index, size in enumerate(sizes):
            budget.take(size)
            if failed.is_set():
                break
            futures.append(pool.submit(call, index))
    return [future.result() for future in futures]


class Budget:
    """What may run at the same time: sizes that sum up to `total` at most. A larger one runs alone."""

    def __init__(self, total: int) -> None:
        self._total, self._taken = total, 0
        self._change = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until there is room for `size`, and take it."""
        with self._change:
            self._change.wait_for(lambda: not self._taken or self._taken + size <= self._total)
            self._taken += size

    @contextmanager
    def given_back(self, size: int) -> Iterator[None]:
        """Give `size`, which was taken, back after the block."""
        try:
            yield
        finally:
            with self._change:
                self._taken -= size
                self._change.notify_all()


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


def listed(items: Any, what: str) -> list[Any]:
    """Return the items of a batch; raise an error for what is one item."""
    one = isinstance(items, (Tokens, str, bytes, dict)) or getattr(items, "ndim", 1) == 0
    try:
        if not one:
            return list(items)
    except TypeError:
        pass
    raise ArgumentError(f"expected a list of {what}, got {type(items).__name__}")
