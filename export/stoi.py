"""Short-time objective intelligibility (STOI; Taal, Hendriks, Heusdens, Jensen: IEEE TASLP 2011), with numpy alone.

`dmcodec evaluate` uses the package pystoi. An export computes STOI several times and must not need scipy; a test
compares the two.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform, prepare_waveform

Frames = NDArray[np.float64]

_RATE = 10000
_WINDOW, _HOP, _FFT = 256, 128, 512
_BANDS, _LOWEST_HZ = 15, 150.0
_SEGMENT = 30  # frames, 384 ms
_CLIP = 1 + 10 ** (15 / 20)  # the lower bound of signal to distortion is -15 dB
_DYNAMIC_RANGE_DB = 40.0
_EPSILON = np.finfo(np.float64).eps


class Stoi:
    """STOI against one original, of which all that depends on it alone is computed once.

    Args:
        reference: the original (samples,).
        sample_rate: in Hz, of the original and of what is compared with it.
    """

    def __init__(self, reference: Waveform, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        frames = _windowed(self._resampled(reference))
        loudness = 20 * np.log10(np.linalg.norm(frames, axis=1) + _EPSILON)
        self._spoken = loudness > loudness.max(initial=-np.inf) - _DYNAMIC_RANGE_DB
        bands = _band_magnitudes(_overlapped(frames[self._spoken]))
        self._is_long_enough = bands.shape[1] >= _SEGMENT
        if self._is_long_enough:
            self._original = _segments(bands)
            self._norm, self._unit = _norm(self._original), _unit(self._original)

    def __call__(self, degraded: Waveform) -> float:
        """Compute the STOI of speech (samples,) that is as long as the original; of less than 0.4 s of speech, 0."""
        if not self._is_long_enough:
            return 0.0
        frames = _windowed(self._resampled(degraded))[self._spoken]
        other = _segments(_band_magnitudes(_overlapped(frames)))
        clipped = np.minimum(other * (self._norm / (_norm(other) + _EPSILON)), self._original * _CLIP)
        return float(np.einsum("bsf,bsf->", self._unit, _unit(clipped)) / self._norm.size)

    def _resampled(self, waveform: Waveform) -> Frames:
        peak = max(1.0, float(np.abs(waveform).max(initial=0.0)))  # STOI does not depend on the level
        return prepare_waveform(waveform / np.float32(peak), self._sample_rate, _RATE).astype(np.float64)


def _segments(bands: Frames) -> Frames:
    """Cut bands into overlapping segments: (_BANDS, frames) -> (_BANDS, segments, _SEGMENT)."""
    return np.lib.stride_tricks.sliding_window_view(bands, _SEGMENT, axis=1)


def _windowed(waveform: Frames) -> Frames:
    """Cut into frames under a Hann window: (samples,) -> (frames, _WINDOW)."""
    starts = range(0, len(waveform) - _WINDOW, _HOP)
    view = np.lib.stride_tricks.sliding_window_view(waveform, _WINDOW) if len(starts) else np.zeros((0, _WINDOW))
    return view[: len(starts) * _HOP : _HOP] * np.hanning(_WINDOW + 2)[1:-1]


def _overlapped(frames: Frames) -> Frames:
    """Add overlapping frames: (frames, _WINDOW) -> (samples,)."""
    signal = np.zeros((len(frames) + 1, _HOP))
    signal[:-1] += frames[:, :_HOP]
    signal[1:] += frames[:, _HOP:]
    return signal.reshape(-1)


def _band_magnitudes(waveform: Frames) -> Frames:
    """Compute magnitudes in bands of a third of an octave: (samples,) -> (_BANDS, frames)."""
    power = np.abs(np.fft.rfft(_windowed(waveform), _FFT, axis=1)) ** 2
    return np.sqrt(_band_matrix() @ power.T)


@functools.cache
def _band_matrix() -> Frames:
    bins_hz = np.linspace(0, _RATE / 2, _FFT // 2 + 1)
    centres_hz = _LOWEST_HZ * 2 ** (np.arange(_BANDS) / 3)
    edges = [np.abs(bins_hz - centres_hz[:, None] * 2 ** (side / 6)).argmin(axis=1) for side in (-1, 1)]
    index = np.arange(len(bins_hz))
    return ((index >= edges[0][:, None]) & (index < edges[1][:, None])).astype(np.float64)


def _norm(segments: Frames) -> Frames:
    return np.linalg.norm(segments, axis=2, keepdims=True)


def _unit(segments: Frames) -> Frames:
    centred = segments - segments.mean(axis=2, keepdims=True)
    return centred / (_norm(centred) + _EPSILON)
