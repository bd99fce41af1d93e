"""Patterns: how the codes of a clip lie in a sequence. Pure functions on arrays, each with its inverse.

The codes are (..., n_q, frames); any axes before them are batch axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import TokensError


def flatten_frames(codes: NDArray[Any]) -> NDArray[Any]:
    """Flatten codes (..., n_q, frames) frame by frame, within a frame level by level, to (..., frames * n_q)."""
    *batch, n_q, frames = codes.shape
    return np.swapaxes(codes, -1, -2).reshape(*batch, n_q * frames)


def unflatten_frames(flat: NDArray[Any], n_q: int) -> NDArray[Any]:
    """Return the codes (..., n_q, frames) that `flatten_frames` made (..., frames * n_q) of.

    Raises:
        TokensError: the length is no multiple of `n_q`.
    """
    frames = _whole(flat.shape[-1], n_q)
    return np.swapaxes(flat.reshape(*flat.shape[:-1], frames, n_q), -1, -2)


def flatten_levels(codes: NDArray[Any]) -> NDArray[Any]:
    """Flatten codes (..., n_q, frames) level by level, each with all its frames, to (..., n_q * frames)."""
    *batch, n_q, frames = codes.shape
    return codes.reshape(*batch, n_q * frames)


def unflatten_levels(flat: NDArray[Any], n_q: int) -> NDArray[Any]:
    """Return the codes (..., n_q, frames) that `flatten_levels` made (..., n_q * frames) of.

    Raises:
        TokensError: the length is no multiple of `n_q`.
    """
    return flat.reshape(*flat.shape[:-1], n_q, _whole(flat.shape[-1], n_q))


def add_offsets(codes: NDArray[Any], codebook_size: int) -> NDArray[np.int64]:
    """Add row * `codebook_size` to codes (..., n_q, frames), so that no two levels share a value."""
    return codes.astype(np.int64) + np.arange(codes.shape[-2])[:, None] * codebook_size


def remove_offsets(ids: NDArray[Any], codebook_size: int) -> NDArray[np.int64]:
    """Return the codes (..., n_q, frames) that `add_offsets` was given.

    Raises:
        TokensError: a value that belongs to another row.
    """
    codes = ids.astype(np.int64) - np.arange(ids.shape[-2])[:, None] * codebook_size
    if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
        place = np.argwhere((codes < 0) | (codes >= codebook_size))[0]
        raise TokensError(f"ids: {ids[tuple(place)]} in row {place[-2]}, column {place[-1]}, is no code of that row")
    return codes


def delay(codes: NDArray[Any], delays: Sequence[int], fill: int) -> NDArray[np.int64]:
    """Shift row k of codes (..., n_q, frames) by delays[k] steps: the delay pattern of MusicGen (arXiv 2306.05284).

    Returns:
        (..., n_q, frames + max(delays)); `fill` stands where a row has no code.
    """
    frames = codes.shape[-1]
    delayed = np.full((*codes.shape[:-1], frames + max(delays)), fill, np.int64)
    for row, steps in enumerate(delays):
        delayed[..., row, steps : steps + frames] = codes[..., row, :]
    return delayed


def undelay(delayed: NDArray[Any], delays: Sequence[int]) -> NDArray[Any]:
    """Return the codes (..., n_q, frames) that `delay` made (..., n_q, frames + max(delays)) of.

    Raises:
        TokensError: fewer steps than the largest delay.
    """
    frames = delayed.shape[-1] - max(delays)
    if frames < 0:
        raise TokensError(f"ids: {delayed.shape[-1]} steps are fewer than the largest delay, {max(delays)}")
    return np.stack([delayed[..., row, steps : steps + frames] for row, steps in enumerate(delays)], axis=-2)


def _whole(length: int, n_q: int) -> int:
    if length % n_q:
        raise TokensError(f"ids: {length} are no whole frames of {n_q} levels ({length % n_q} too many)")
    return length // n_q
