"""Turns what came out into a `Check`, with the thresholds of a precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.verify.result import Check
from dmcodec.export.fidelity import max_abs_error, snr_db
from dmcodec.export.parity import INAUDIBLE_ERROR, THRESHOLDS
from dmcodec.export.reference import Reference
from dmcodec.export.ties import tied_frames

# What a window's limited context may change: docs/streaming.md
WINDOW_CODE_AGREEMENT = 0.999


@dataclasses.dataclass(frozen=True)
class Expected:
    """What the reference says of one clip: latents [D, T], codes [n_q, T], and audio [samples] where it is needed."""

    latents: NDArray[np.float32]
    codes: NDArray[np.int64]
    audio: NDArray[np.float32]


def _all(expected: Sequence[Expected]) -> list[int]:
    return [len(item.codes) for item in expected]


def expected_of(reference: Reference, waveform: NDArray[np.float32]) -> Expected:
    """Runs a clip through the reference in one piece; the audio is as long as the clip."""
    latents = reference.encode(waveform)
    codes = reference.quantize(latents)
    return Expected(latents, codes, reference.decode(reference.dequantize(codes))[: len(waveform)])


class Judge:
    """Makes checks for one reference and precision."""

    def __init__(self, reference: Reference, precision: str) -> None:
        self._reference, self._precision, self._thresholds = reference, precision, THRESHOLDS[precision]

    def codes(
        self,
        what: str,
        detail: str,
        expected: Sequence[Expected],
        got: Sequence[NDArray[Any]],
        levels: Sequence[int] | None = None,
        window_agreement: float | None = None,
    ) -> Check:
        """Codes [n, T] of clips against the first n levels of what was expected of each.

        Args:
            levels: how many levels were asked for, of each clip; all by default.
            window_agreement: of codes made with limited context: the share that it left as they were at export. It may
                change a code in a thousand; of a model that remembers for longer than that, half that share is
                bounded: other speech gives other shares, but what is broken gives next to none.
        """
        due = [(count, item.codes.shape[1]) for item, count in zip(expected, levels or _all(expected), strict=True)]
        for shape, codes in zip(due, got, strict=True):
            if codes.shape != shape:
                return Check(what, detail, problem=f"{what}: codes {codes.shape} where {shape} are due")
        pairs = [(item.codes[: len(codes)], codes.astype(np.int64)) for item, codes in zip(expected, got, strict=True)]
        tied = [
            tied_frames(self._reference.codebooks, item.latents[None], right[:, None], codes[:, None])[0]
            for item, (right, codes) in zip(expected, pairs, strict=True)
        ]
        ties = np.concatenate(tied)
        equal = [right == codes for right, codes in pairs]
        check = Check(
            what,
            detail,
            code_agreement=float(np.concatenate([item.ravel() for item in equal]).mean()),
            level0_agreement=float((np.concatenate([item[0] for item in equal]) | ties).mean()),
            frame_agreement=float((np.concatenate([item.all(axis=0) for item in equal]) | ties).mean()),
            ties=int(ties.sum()),
        )
        bounds = self._thresholds
        if window_agreement is None:
            return self._bounded(
                check, level0_agreement=bounds.level0_agreement, frame_agreement=bounds.frame_agreement
            )
        if not bounds.frame_agreement:  # half precision flips codes by itself
            return self._bounded(check, level0_agreement=bounds.level0_agreement)
        if window_agreement < WINDOW_CODE_AGREEMENT:
            return self._bounded(check, code_agreement=window_agreement / 2)
        return self._bounded(check, level0_agreement=bounds.level0_agreement, code_agreement=WINDOW_CODE_AGREEMENT)

    def audio(
        self, what: str, detail: str, expected: Sequence[NDArray[np.float32]], got: Sequence[NDArray[np.float32]]
    ) -> Check:
        """Waveforms [samples] that both sides made from the same codes; the worst of the audible errors counts."""
        for right, audio in zip(expected, got, strict=True):
            if audio.shape != right.shape:
                return Check(what, detail, problem=f"{what}: audio {audio.shape} where {right.shape} is due")
        figures = [(snr_db(*pair), max_abs_error(*pair)) for pair in zip(expected, got, strict=True)]
        audible = [snr for snr, error in figures if not error <= INAUDIBLE_ERROR]
        lowest = min(audible or [snr for snr, _ in figures])
        check = Check(what, detail, snr_db=lowest, max_abs_error=max(error for _, error in figures))
        return self._bounded(check, snr_db=self._thresholds.decoder_snr_db if audible else None)

    def _bounded(self, check: Check, **bounds: float | None) -> Check:
        for name, bound in bounds.items():
            value = getattr(check, name)
            if bound is not None and not value >= bound:
                return dataclasses.replace(
                    check,
                    problem=f"{check.what}: {name} is {value:.6g} ({check.detail}); "
                    f"{self._precision} needs at least {bound:.6g}",
                )
        return check
