"""Metrics of two waveforms. Each returns a finite number or raises MetricError."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError
from dmcodec.waveforms import resampler

from .dnsmos import NAMES as DNSMOS
from .dnsmos import dnsmos
from .pitch import compare_pitch
from .spectra import (
    mean_absolute_difference,
    mel_cepstral_distortion_db,
    mel_distance,
    superb_mel,
    superb_stft,
)

SAMPLE_RATE = 16000
NARROW_RATE = 8000  # of narrowband PESQ
MAX_PESQ_S = 60.0
MIN_VISQOL_S = 1.0
# Metrics that one task computes. PESQ has a task of its own: its C code can crash, which must cost no other metric.
GROUPS = (
    ("stoi", "estoi", "si-sdr", "si-snr", "mel", "mcd", "superb-mel", "superb-stft", "superb-waveform"),
    ("pesq",),
    ("pesq-nb",),
    ("visqol", "visqol-polynomial"),
    ("f0-corr", "f0-rmse", "vuv"),
    tuple(DNSMOS),
)


@contextmanager
def _native_messages_off() -> Iterator[None]:
    """Discard stderr: the native runtime of the lattice model writes a line to it, past Python, on each load."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def stoi(reference: Waveform, degraded: Waveform, extended: bool = False) -> float:
    """Compute short-time objective intelligibility (Taal et al., IEEE TASLP 2011).

    `extended`: ESTOI (Jensen and Taal, IEEE TASLP 2016).
    """
    from pystoi import stoi as pystoi

    _refuse_silence(reference)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames")
        try:
            return float(pystoi(reference, degraded, SAMPLE_RATE, extended=extended))
        except RuntimeWarning:
            raise MetricError("less than 0.4 s of speech, too little for STOI") from None
        except (IndexError, ValueError):  # of clips shorter than one frame
            raise MetricError("too short for STOI") from None


def pesq_wb(reference: Waveform, degraded: Waveform) -> float:
    """Compute wideband PESQ (ITU-T P.862.2)."""
    return _pesq(reference, degraded, SAMPLE_RATE, "wb")


def pesq_nb(reference: Waveform, degraded: Waveform) -> float:
    """Compute narrowband PESQ (ITU-T P.862, mapped to MOS-LQO by P.862.1) of both clips at 8 kHz."""
    narrow, other = (resampler(SAMPLE_RATE, NARROW_RATE)(each, True) for each in (reference, degraded))
    return _pesq(narrow, other, NARROW_RATE, "nb")


def _pesq(reference: Waveform, degraded: Waveform, sample_rate: int, mode: str) -> float:
    import pesq

    if len(reference) > MAX_PESQ_S * sample_rate:
        raise MetricError(f"longer than {MAX_PESQ_S:g} s: PESQ is for short clips, and its code overruns on long ones")
    _refuse_silence(reference)
    try:
        return float(pesq.pesq(sample_rate, reference, degraded, mode))
    except pesq.NoUtterancesError:
        raise MetricError("PESQ found no speech") from None
    except pesq.BufferTooShortError:
        raise MetricError("shorter than 0.25 s, too short for PESQ") from None
    except ValueError:  # its result is NaN
        raise MetricError("PESQ is not a number (is the reconstruction silent?)") from None


def si_sdr_db(reference: Waveform, degraded: Waveform) -> float:
    """Compute the scale-invariant signal-to-distortion ratio in dB (arXiv 1811.02508) of zero-mean signals."""
    _refuse_silence(reference)
    target = reference.astype(np.float64) - reference.mean(dtype=np.float64)
    estimate = degraded.astype(np.float64) - degraded.mean(dtype=np.float64)
    power = float(target @ target)
    if power == 0:
        raise MetricError("the original is constant")
    scaled = target * (float(estimate @ target) / power)
    signal, noise = float(scaled @ scaled), float(np.square(estimate - scaled).sum())
    if signal == 0:
        raise MetricError("SI-SDR is minus infinity: the reconstruction has nothing of the original")
    if noise <= 1e-14 * signal:
        raise MetricError("SI-SDR is infinite: the reconstruction equals the original, apart from its level")
    return 10 * math.log10(signal / noise)


def visqol_pair(reference: Waveform, degraded: Waveform, keys: Sequence[str]) -> dict[str, float]:
    """Compute ViSQOL (arXiv 2004.09584) in speech mode, with one or both mappings of the same similarities to MOS.

    The lattice model is loaded only if `keys` has "visqol".
    """
    _refuse_silence(reference)
    if len(reference) < MIN_VISQOL_S * SAMPLE_RATE:
        raise MetricError(f"shorter than {MIN_VISQOL_S:g} s, too short for ViSQOL")
    if not np.any(degraded):
        raise MetricError("the reconstruction is silent: ViSQOL can't match its level")
    api = _visqol("visqol" in keys)
    try:
        result = api.measure_from_arrays(reference.astype(np.float64), degraded.astype(np.float64), SAMPLE_RATE)
    except (ValueError, IndexError) as error:
        raise MetricError(f"ViSQOL: {error}") from None
    values = {"visqol-polynomial": _polynomial_mos(result)}
    if "visqol" in keys:
        values["visqol"] = float(result.moslqo)
    return {key: values[key] for key in keys}


def measure(keys: Sequence[str], reference: Waveform, degraded: Waveform) -> tuple[dict[str, float], dict[str, str]]:
    """Compute the named metrics of two waveforms (samples,), at 16 kHz, equally long.

    Returns:
        The values by key, and the reasons of the metrics without a value; each key is in one of the two.
    """
    values: dict[str, float] = {}
    failures: dict[str, str] = {}
    for key in keys:
        if key in values or key in failures:
            continue
        family = next((each for each in _FAMILIES if key in each), (key,))
        group = [other for other in keys if other in family]
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # a result that isn't finite becomes a reason below
                computed = _compute(group, reference, degraded)
            failures.update({name: str(each) for name, each in computed.items() if isinstance(each, MetricError)})
            found = {name: each for name, each in computed.items() if not isinstance(each, MetricError)}
            _check_finite(found)
            values.update(found)
        except MetricError as error:
            failures.update(dict.fromkeys(group, str(error)))
    return values, failures


def _compute(keys: Sequence[str], reference: Waveform, degraded: Waveform) -> Mapping[str, float | MetricError]:
    if keys[0] in _SIMPLE:
        return {key: _SIMPLE[key](reference, degraded) for key in keys}
    family = next(each for each in _FAMILIES if keys[0] in each)
    found = _FAMILIES[family](reference, degraded, keys)
    return {key: found[key] for key in keys}


def _pitch_family(reference: Waveform, degraded: Waveform, _: Sequence[str]) -> Mapping[str, float | MetricError]:
    _refuse_silence(reference)
    return compare_pitch(reference, degraded, SAMPLE_RATE)


def _dnsmos_family(reference: Waveform, degraded: Waveform, _: Sequence[str]) -> Mapping[str, float | MetricError]:
    _refuse_silence(reference)  # a score of what a codec makes of silence is none of speech
    return dnsmos(degraded, SAMPLE_RATE)


def _check_finite(values: Mapping[str, float]) -> None:
    for key, value in values.items():
        if not math.isfinite(value):
            raise MetricError(f"{key} is {value}")


def _refuse_silence(reference: Waveform) -> None:
    # ViSQOL and STOI return numbers for silence, even good ones (4.7).
    if len(reference) == 0 or not np.any(reference):
        raise MetricError("the original is silent")


@functools.cache
def _visqol(lattice: bool) -> Any:
    from visqol import VisqolApi

    api = VisqolApi()
    with _native_messages_off():
        api.create(mode="speech", use_lattice_model=lattice)
    return api


def _polynomial_mos(result: Any) -> float:
    """Return the MOS of the unscaled polynomial mapping, with the same minimum as in `VisqolApi`."""
    from visqol.quality_mapper import SpeechSimilarityToQualityMapper
    from visqol.visqol_core import alter_for_similarity_extremes

    mos = SpeechSimilarityToQualityMapper(scale_to_max_mos=False).predict_quality(result.fvnsim)
    return float(alter_for_similarity_extremes(result.vnsim, mos))


_SIMPLE: Mapping[str, Callable[[Waveform, Waveform], float]] = {
    "stoi": stoi,
    "estoi": functools.partial(stoi, extended=True),
    "pesq": pesq_wb,
    "pesq-nb": pesq_nb,
    "si-sdr": si_sdr_db,
    "si-snr": si_sdr_db,  # of zero-mean signals, as SI-SDR is here
    "mel": functools.partial(mel_distance, sample_rate=SAMPLE_RATE),
    "mcd": functools.partial(mel_cepstral_distortion_db, sample_rate=SAMPLE_RATE),
    "superb-mel": functools.partial(superb_mel, sample_rate=SAMPLE_RATE),
    "superb-stft": superb_stft,
    "superb-waveform": mean_absolute_difference,
}
# Metrics that one computation gives: of reference, degraded and the keys that are wanted.
_FAMILIES: Mapping[
    tuple[str, ...], Callable[[Waveform, Waveform, Sequence[str]], Mapping[str, float | MetricError]]
] = {
    ("visqol", "visqol-polynomial"): visqol_pair,
    ("f0-corr", "f0-rmse", "vuv"): _pitch_family,
    tuple(DNSMOS): _dnsmos_family,
}
