"""Pitch of speech: F0 and voicing of two clips, compared frame by frame."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError

F0_MIN_HZ, F0_MAX_HZ = 50.0, 550.0
HOP_S, WINDOW_S = 0.01, 0.064
MIN_VOICED_FRAMES = 10

Pitch = tuple[NDArray[np.float64], NDArray[np.bool_]]


def compare_pitch(reference: Waveform, degraded: Waveform, sample_rate: int) -> dict[str, float | MetricError]:
    """Compare F0 and voicing of two clips (samples,), equally long.

    F0 is estimated with probabilistic YIN (Mauch and Dixon, ICASSP 2014) every 10 ms in windows of 64 ms, from 50 to
    550 Hz.

    Returns:
        f0-corr: Pearson correlation of the F0 in Hz over the frames that are voiced in both.
        f0-rmse: root mean square difference of these, in Hz.
        vuv: voicing error, the percentage of all frames that are voiced in one of the clips only.

    Raises:
        MetricError: the clips are shorter than two windows.
    """
    if len(reference) < 2 * WINDOW_S * sample_rate:
        raise MetricError(f"shorter than {2 * WINDOW_S:g} s, too short for F0")
    (f0, voiced), (other_f0, other_voiced) = (
        _pitch(np.ascontiguousarray(each, np.float32).tobytes(), sample_rate) for each in (reference, degraded)
    )
    both = voiced & other_voiced
    errors = _f0_errors(f0[both], other_f0[both])
    return {**errors, "vuv": 100 * float((voiced != other_voiced).mean())}


def _f0_errors(f0: NDArray[np.float64], other: NDArray[np.float64]) -> Mapping[str, float | MetricError]:
    if len(f0) < MIN_VOICED_FRAMES:
        reason = MetricError(f"fewer than {MIN_VOICED_FRAMES} frames are voiced in both clips")
        return {"f0-corr": reason, "f0-rmse": reason}
    correlation: float | MetricError = MetricError("F0 is constant, so that it has no correlation")
    if np.ptp(f0) > 0 and np.ptp(other) > 0:
        correlation = float(np.corrcoef(f0, other)[0, 1])
    return {"f0-corr": correlation, "f0-rmse": float(np.sqrt(np.square(f0 - other).mean()))}


@functools.lru_cache(maxsize=2)  # the original comes again with each codec
def _pitch(samples: bytes, sample_rate: int) -> Pitch:
    import librosa

    f0, voiced, _ = librosa.pyin(
        np.frombuffer(samples, np.float32).astype(np.float64),
        fmin=F0_MIN_HZ,
        fmax=F0_MAX_HZ,
        sr=sample_rate,
        frame_length=round(WINDOW_S * sample_rate),
        hop_length=round(HOP_S * sample_rate),
    )
    return f0, voiced
