"""Codes as arrays: their type, shape and range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import MAX_N_Q
from .errors import TokensError
from .waveforms import as_array

# (n_q, frames): row 0 is the first quantizer level.
Codes = NDArray[np.uint16]


def checked_codes(codes: Any, codebook_size: int) -> Codes:
    """Return a uint16 copy of `codes` (n_q, frames).

    Raises:
        TokensError: another shape, no integers, or values outside 0 to `codebook_size` - 1.
    """
    array = codes_array(codes)
    if array.ndim == 3:
        raise TokensError(f"codes: expected shape (n_q, frames), got {array.shape}{_batch_hint(array.shape)}")
    if array.ndim != 2 or not 1 <= array.shape[0] <= MAX_N_Q:
        raise TokensError(f"codes: expected shape (n_q, frames) with 1 to {MAX_N_Q} levels, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TokensError(f"codes: expected integers, got {array.dtype}; convert whole numbers with .astype(np.int64)")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= codebook_size):
        raise TokensError(
            f"codes: values {int(array.min())} to {int(array.max())} are outside 0 to {codebook_size - 1}"
        )
    return array.astype(np.uint16)


def codes_array(codes: Any) -> NDArray[Any]:
    """Return `codes` as an array; raise TokensError if that is not possible."""
    return as_array(codes, "codes", TokensError)


def is_whole(value: Any) -> bool:
    """Return whether a value is a whole number, of Python or numpy; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _batch_hint(shape: tuple[int, ...]) -> str:
    """Return what to do about codes with a batch axis, which other codecs put first or second."""
    if shape[0] == 1:
        return "; take one clip of a batch (1, n_q, frames) with [0]"
    if shape[1] == 1:
        return "; take one clip of a batch (n_q, 1, frames) with [:, 0]"
    return "; take one clip of the batch"
