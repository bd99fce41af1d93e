"""Mel filter banks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mel_filters(n_fft: int, n_mels: int, sample_rate: int) -> NDArray[np.float64]:
    """Return triangular mel filters from 0 Hz to half the sample rate.

    The triangles are evenly spaced on the HTK mel scale, mel = 2595 log10(1 + f / 700), and each has an area of 1 in
    Hz (Slaney's norm).

    Returns:
        (n_mels, n_fft // 2 + 1).
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, 1, n_mels + 2) * top / 2595) - 1)
    bins_hz = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return np.asarray(np.maximum(triangles, 0) * 2 / (high - low))
