"""Log-mel spectrograms in numpy, defined as in the first scale of the training's mel loss."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError

N_FFT = 1024
HOP_SAMPLES = 240
N_MELS = 80
FLOOR = 1e-5
_PAD = (N_FFT - HOP_SAMPLES) // 2


def mel_distance(reference: Waveform, degraded: Waveform, sample_rate: int) -> float:
    """Mean absolute difference of two clips' log-mels; both (samples,), equally long.

    Raises:
        MetricError: shorter than one window.
    """
    if len(reference) < N_FFT:
        raise MetricError(f"shorter than one window of {N_FFT} samples")
    return float(np.abs(log_mel(reference, sample_rate) - log_mel(degraded, sample_rate)).mean())


def log_mel(waveform: Waveform, sample_rate: int) -> NDArray[np.float64]:
    """Natural logarithm of mel magnitudes: (samples,) -> (N_MELS, frames). Reflect padding of (n_fft - hop) / 2."""
    padded = np.pad(waveform.astype(np.float64), _PAD, mode="reflect")
    mels = mel_filters(sample_rate) @ magnitudes(padded, N_FFT, HOP_SAMPLES)
    return np.asarray(np.log(np.maximum(mels, FLOOR)))


def magnitudes(waveform: NDArray[np.floating], n_fft: int, hop_samples: int) -> NDArray[np.float64]:
    """Short-time magnitudes with a periodic Hann window: (samples,) -> (n_fft / 2 + 1, frames)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, n_fft)[::hop_samples]
    return np.abs(np.fft.rfft(frames * window, axis=1)).T


@functools.cache
def mel_filters(sample_rate: int) -> NDArray[np.float64]:
    """Triangles from 0 Hz to half the sample rate, evenly spaced on the HTK mel scale, each of unit area per Hz.

    Returns:
        (N_MELS, N_FFT / 2 + 1).
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, top, N_MELS + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(N_FFT, 1 / sample_rate)
    low, centre, high = corners_hz[:-2, None], corners_hz[1:-1, None], corners_hz[2:, None]
    triangles = np.minimum((bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre))
    return np.asarray(np.maximum(triangles, 0) * 2 / (high - low))
