"""Measures of how close two results are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SNR_CEILING_DB = 200.0  # equal to the last bit; keeps infinity out of JSON


def snr_db(reference: NDArray[Any], test: NDArray[Any]) -> float:
    """Signal-to-noise ratio in dB of `test` against `reference`, at most SNR_CEILING_DB."""
    reference = reference.astype(np.float64)
    noise = float(np.square(reference - test).sum())
    signal = float(np.square(reference).sum())
    if noise == 0:
        return SNR_CEILING_DB
    if not np.isfinite(noise) or signal == 0:
        return -SNR_CEILING_DB
    return min(SNR_CEILING_DB, 10 * float(np.log10(signal / noise)))


def max_abs_error(reference: NDArray[Any], test: NDArray[Any]) -> float:
    """Largest absolute difference; infinity where `test` holds NaN."""
    error = float(np.abs(reference.astype(np.float64) - test).max())
    return error if np.isfinite(error) else float("inf")


def code_agreement(reference: NDArray[Any], test: NDArray[Any]) -> float:
    """Share of equal codes, 0 to 1."""
    return float((reference == test).mean())
