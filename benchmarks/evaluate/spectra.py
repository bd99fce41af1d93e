"""Spectra of waveforms, and the metrics that compare them: log-mel distance, mel cepstra, Codec-SUPERB's distances."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError
from dmcodec.mel import mel_filters

N_FFT = 1024
HOP_SAMPLES = 240
N_MELS = 80
FLOOR = 1e-5
MCD_ORDER = 24
_PAD = (N_FFT - HOP_SAMPLES) // 2
_mel_filters = functools.cache(mel_filters)


def mel_distance(reference: Waveform, degraded: Waveform, sample_rate: int) -> float:
    """Compute the mean absolute difference of the log-mel spectrograms of two clips (samples,), equally long.

    Raises:
        MetricError: the clips are shorter than one window.
    """
    if len(reference) < N_FFT:
        raise MetricError(f"shorter than one window of {N_FFT} samples")
    return float(np.abs(log_mel(reference, sample_rate) - log_mel(degraded, sample_rate)).mean())


def mel_cepstral_distortion_db(reference: Waveform, degraded: Waveform, sample_rate: int) -> float:
    """Compute the mel-cepstral distortion in dB (Kubichek, 1993) of two clips (samples,), equally long.

    10 / ln 10 * sqrt(2 * sum of squared differences of c_1 to c_24), averaged over the frames, which are compared in
    place (without dynamic time warping). The cepstra are those of `log_mel`: ln magnitude = c_0 / 2 + sum of c_m
    cos(pi m (k + 1/2) / N_MELS).

    Raises:
        MetricError: the clips are shorter than one window.
    """
    from scipy.fft import dct

    if len(reference) < N_FFT:
        raise MetricError(f"shorter than one window of {N_FFT} samples")
    cepstra = [dct(log_mel(each, sample_rate), type=2, axis=0) / N_MELS for each in (reference, degraded)]
    squares = np.square((cepstra[0] - cepstra[1])[1 : MCD_ORDER + 1]).sum(axis=0)
    return float((10 / math.log(10) * np.sqrt(2 * squares)).mean())


def log_mel(waveform: Waveform, sample_rate: int) -> NDArray[np.float64]:
    """Compute natural-log mel magnitudes: (samples,) -> (N_MELS, frames), as the first scale of the mel loss has them.

    Both ends are padded by reflection, with (N_FFT - HOP_SAMPLES) / 2 samples.
    """
    padded = np.pad(waveform.astype(np.float64), _PAD, mode="reflect")
    mels = _mel_filters(N_FFT, N_MELS, sample_rate) @ magnitudes(padded, N_FFT, HOP_SAMPLES)
    return np.asarray(np.log(np.maximum(mels, FLOOR)))


def magnitudes(waveform: NDArray[np.floating], n_fft: int, hop_samples: int) -> NDArray[np.float64]:
    """Compute short-time magnitudes with a periodic Hann window: (samples,) -> (n_fft / 2 + 1, frames)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    frames = np.lib.stride_tricks.sliding_window_view(waveform, n_fft)[::hop_samples]
    return np.abs(np.fft.rfft(frames * window, axis=1)).T


SUPERB_WINDOWS = (2048, 512)
SUPERB_MELS = (150, 80)
SUPERB_FLOOR = 1e-5


def superb_stft(reference: Waveform, degraded: Waveform) -> float:
    """Compute Codec-SUPERB's `stft` of two clips (samples,), equally long.

    For windows of 2048 and 512 samples (Hann, hop a quarter): the mean absolute difference of log10 of the squared
    magnitudes, clamped at 1e-5 before, and that of the magnitudes; all four summed.

    Raises:
        MetricError: the clips are shorter than one window.
    """
    return sum(_superb_distance(_centred(reference, window), _centred(degraded, window)) for window in SUPERB_WINDOWS)


def superb_mel(reference: Waveform, degraded: Waveform, sample_rate: int) -> float:
    """Compute Codec-SUPERB's `mel`: as `superb_stft`, of 150 and 80 mels (Slaney's scale and norm).

    Raises:
        MetricError: the clips are shorter than one window.
    """
    total = 0.0
    for window, n_mels in zip(SUPERB_WINDOWS, SUPERB_MELS, strict=True):
        filters = _slaney_filters(window, n_mels, sample_rate)
        total += _superb_distance(filters @ _centred(reference, window), filters @ _centred(degraded, window))
    return total


def mean_absolute_difference(reference: Waveform, degraded: Waveform) -> float:
    """Compute the mean absolute difference of the samples of two clips (samples,), equally long."""
    return float(np.abs(reference.astype(np.float64) - degraded).mean())


def _superb_distance(reference: NDArray[np.float64], degraded: NDArray[np.float64]) -> float:
    logs = [2 * np.log10(np.maximum(each, SUPERB_FLOOR)) for each in (reference, degraded)]
    return float(np.abs(logs[0] - logs[1]).mean() + np.abs(reference - degraded).mean())


def _centred(waveform: Waveform, window: int) -> NDArray[np.float64]:
    """Return magnitudes with a frame centred on each multiple of the hop; both ends are reflected."""
    if len(waveform) < window:
        raise MetricError(f"shorter than one window of {window} samples")
    return magnitudes(np.pad(waveform.astype(np.float64), window // 2, mode="reflect"), window, window // 4)


@functools.cache
def _slaney_filters(n_fft: int, n_mels: int, sample_rate: int) -> NDArray[np.floating]:
    import librosa

    filters: NDArray[np.floating] = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels)
    return filters
