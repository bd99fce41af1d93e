"""Arrays and torch tensors of codes and ids: batch axes, lengths, padding. torch itself is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.codes import is_whole
from dmcodec.errors import ArgumentError, TokensError
from dmcodec.waveforms import as_array

AXES = ("BKT", "KBT")


def id_array(ids: Any) -> NDArray[np.int64]:
    """Return ids as int64; TokensError where they are no integers."""
    array = as_array(ids, "ids", TokensError)
    if array.dtype.kind not in "iu" and array.size:  # an empty list is float64
        raise TokensError(f"ids: expected integers, got {array.dtype}; convert whole numbers with .astype(np.int64)")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise TokensError(f"ids: {int(array.max())} is outside every vocabulary")
    return array.astype(np.int64)


def like(source: Any, array: NDArray[Any]) -> Any:
    """Return an array as it is, or where `source` is a torch tensor, as an int64 tensor on its device."""
    if hasattr(source, "new_empty") and hasattr(source, "detach"):
        return source.detach().new_empty(0).long().new_tensor(array.astype(np.int64))
    return array


def clips_of(codes: NDArray[Any], n_q: int | None, axes: str, lengths: Any) -> list[NDArray[Any]]:
    """Return the clips (n_q, frames) of a batch of codes, each cut to its length; any n_q where it is None."""
    levels = codes.shape[axes.index("K")]
    if n_q is not None and levels != n_q:
        other = next(each for each in AXES if each != axes)
        hint = f"; give axes='{other}'" if codes.shape[axes.index("B")] == n_q else ""
        raise TokensError(f"codes: shape {codes.shape} of axes {axes} has {levels} levels, but the layout {n_q}{hint}")
    return _cut(list(np.moveaxis(codes, _batch_axis(axes), 0)), lengths, "codes")


def rows_of(ids: NDArray[np.int64], parallel: bool, axes: str, lengths: Any) -> list[NDArray[np.int64]]:
    """Return the sequences of a batch of ids: (length,) each, or (n_q, steps) for parallel levels, cut to lengths."""
    wanted = 3 if parallel else 2
    if ids.ndim != wanted:
        single, batch = ("(n_q, steps)", f"a batch of axes {axes}") if parallel else ("(length,)", "(B, length)")
        raise TokensError(f"ids: expected shape {single} or {batch}, got {ids.shape}")
    return _cut(list(np.moveaxis(ids, _batch_axis(axes), 0) if parallel else ids), lengths, "ids")


def stacked(clips: Sequence[NDArray[Any]], fill: int, axes: str) -> NDArray[Any]:
    """Stack clips or sequences of different lengths to a batch, filled up at the end; inverse of cutting it."""
    length = max(clip.shape[-1] for clip in clips)
    batch = np.full((len(clips), *clips[0].shape[:-1], length), fill, clips[0].dtype)
    for index, clip in enumerate(clips):
        batch[index, ..., : clip.shape[-1]] = clip
    return np.moveaxis(batch, 0, _batch_axis(axes)) if batch.ndim == 3 else batch


def checked_axes(axes: Any) -> str:
    """Return the axes of a batch, or raise ArgumentError."""
    if axes not in AXES:
        raise ArgumentError(f"axes must be {' or '.join(AXES)} (B clips, K levels, T frames), not {axes!r}")
    return str(axes)


def _batch_axis(axes: str) -> int:
    return checked_axes(axes).index("B")


def _cut(clips: list[NDArray[Any]], lengths: Any, what: str) -> list[NDArray[Any]]:
    if not clips:
        raise TokensError(f"{what}: the batch holds no clips")
    if lengths is None:
        return clips
    numbers = id_array(lengths).tolist() if not is_whole(lengths) else [lengths]
    longest = clips[0].shape[-1]
    if len(numbers) != len(clips):
        raise TokensError(f"{what}: {len(numbers)} lengths for {len(clips)} clips")
    for index, number in enumerate(numbers):
        if not is_whole(number) or not 0 <= number <= longest:
            raise TokensError(f"{what}: length {number} of clip {index} is not within 0 to {longest}")
    return [clip[..., :number] for clip, number in zip(clips, numbers, strict=True)]
