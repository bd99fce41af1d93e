"""Codes as arrays: their type, shape and range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import MAX_N_Q
from .errors import TokensError

# (n_q, frames): row 0 is the first quantizer level.
Codes = NDArray[np.uint16]


def checked_codes(codes: Any, codebook_size: int) -> Codes:
    """Return a uint16 copy of `codes` (n_q, frames).

    Raises:
        TokensError: another shape, no integers, or values outside 0 to `codebook_size` - 1.
    """
    array = as_array(codes)
    if array.ndim != 2 or not 1 <= array.shape[0] <= MAX_N_Q:
        raise TokensError(f"codes: expected shape (n_q, frames) with 1 to {MAX_N_Q} levels, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TokensError(f"codes: expected integers, got {array.dtype}")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= codebook_size):
        raise TokensError(
            f"codes: values {int(array.min())} to {int(array.max())} are outside 0 to {codebook_size - 1}"
        )
    return array.astype(np.uint16)


def as_array(codes: Any) -> NDArray[Any]:
    """Return `codes` as an array; raise TokensError if the rows have different lengths."""
    try:
        return np.asarray(codes)
    except ValueError as error:
        raise TokensError("codes: can't be converted to an array; give rows of equal length") from error
