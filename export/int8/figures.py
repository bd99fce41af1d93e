"""Figures of a network in int8 beside those of the same network in float32, on clips of speech."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from dmcodec.audio import Waveform, prepare_waveform
from dmcodec.export.agreement import snr_db
from dmcodec.export.stoi import Stoi

from .sessions import Session

_PESQ_RATE = 16000


@dataclasses.dataclass(frozen=True)
class Encoded:
    """What an encoder gives for clips: latents [1, D, T], and codes [n_q, 1, T], of each."""

    latents: tuple[NDArray[np.float32], ...]
    codes: tuple[NDArray[np.int64], ...]


class Rvq:
    """The quantizer and the dequantizer, which are float32 in every precision."""

    def __init__(self, quantizer: onnx.ModelProto, dequantizer: onnx.ModelProto) -> None:
        self._quantizer, self._dequantizer = Session(quantizer), Session(dequantizer)

    def encoded(self, encoder: Session, clips: Sequence[Waveform]) -> Encoded:
        """Encode clips with an encoder in its plain form."""
        latents = tuple(encoder.run(waveform=clip[None, None]) for clip in clips)
        return Encoded(latents, tuple(self._quantizer.run(latents=item) for item in latents))

    def dequantized(self, encoded: Encoded) -> tuple[NDArray[np.float32], ...]:
        """Return the latents [1, D, T] of the codes."""
        first_level = np.array(0, np.int64)
        return tuple(self._dequantizer.run(codes=codes, first_level=first_level) for codes in encoded.codes)


@dataclasses.dataclass(frozen=True)
class EncoderFigures:
    """An encoder against float32: SNR of the latents in dB, and shares of equal codes. Ties count as different."""

    latents_snr_db: float
    code_agreement: float
    level0_agreement: float


def encoder_figures(expected: Encoded, got: Encoded) -> EncoderFigures:
    """Compare what two encoders give for the same clips."""
    equal = np.concatenate([a == b for a, b in zip(expected.codes, got.codes, strict=True)], axis=2)
    return EncoderFigures(joined_snr_db(expected.latents, got.latents), float(equal.mean()), float(equal[0].mean()))


def joined_snr_db(expected: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]]) -> float:
    """Return the SNR in dB of all clips as one."""
    return snr_db(*(np.concatenate([item.ravel() for item in items]) for items in (expected, got)))


def speech_scores(
    clips: Sequence[Waveform], decoded: Mapping[str, Sequence[NDArray[np.float32]]], sample_rate: int
) -> dict[str, float]:
    """Return the mean STOI of decoded clips, and the mean PESQ-WB where pesq is installed.

    Args:
        clips: the originals.
        decoded: waveforms [1, 1, samples], one for each clip, by the end of the names of their scores.
        sample_rate: in Hz.
    """
    scores: dict[str, float] = {}
    measures = [Stoi(clip, sample_rate) for clip in clips]
    for ending, waveforms in decoded.items():
        cut = [waveform[0, 0, : len(clip)] for waveform, clip in zip(waveforms, clips, strict=True)]
        values = [measure(waveform) for measure, waveform in zip(measures, cut, strict=True)]
        scores[f"stoi{ending}"] = float(np.mean(values))
        pesq = [_pesq_wb(clip, waveform, sample_rate) for clip, waveform in zip(clips, cut, strict=True)]
        if known := [value for value in pesq if value is not None]:
            scores[f"pesq_wb{ending}"] = float(np.mean(known))
    return scores


def _pesq_wb(original: Waveform, degraded: NDArray[np.float32], sample_rate: int) -> float | None:
    """Return PESQ-WB; None where pesq is not installed, or finds no speech."""
    try:
        import pesq
    except ModuleNotFoundError:
        return None
    pair = [prepare_waveform(_within_one(item), sample_rate, _PESQ_RATE) for item in (original, degraded)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(pesq.pesq(_PESQ_RATE, *pair, "wb"))
    except (pesq.PesqError, ValueError):
        return None


def _within_one(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    peak = max(1.0, float(np.abs(waveform).max(initial=0.0)))
    return (waveform / np.float32(peak)).astype(np.float32)
