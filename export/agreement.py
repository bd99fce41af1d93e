"""Measures of the agreement of two results: codes with ties, and signals by SNR and absolute error. Needs no torch.

A tie is a code that differs because two codebook entries are equally near to the residual, up to float32 rounding:
each side took one of the two, and neither is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .reference import Expected, Reference

SNR_CEILING_DB = 200.0  # of identical signals; keeps infinity out of JSON

# Audio passes at any SNR where no sample differs by more (-120 dBFS). In near silence the rounding of a float32 decoder
# is less than 90 dB below the signal: a trained model's output for one sample was 2e-7, 88 dB, off its float64 value.
INAUDIBLE_ERROR = 1e-6

# Two entries are tied where moving the latents by this share of their norm (114 dB below them) makes them equally near,
LATENTS_ROUNDING = 2e-6
# or where their scores |e|^2 - 2 x.e differ by no more than float32 rounding.
SCORE_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class CodeComparison:
    """Agreement of the codes of several clips with a reference.

    Attributes:
        code_agreement: share of equal codes, 0 to 1. Frames that differ by a tie only count as equal.
        level0_agreement: share of frames whose code of the first level is equal, or that differ by a tie only.
        frame_agreement: share of frames whose codes are all equal, or that differ by a tie only.
        ties: number of frames that differ by a tie only.
    """

    code_agreement: float
    level0_agreement: float
    frame_agreement: float
    ties: int


@dataclasses.dataclass(frozen=True)
class AudioComparison:
    """Agreement of a waveform with a reference: SNR in dB, and the largest absolute error of a sample."""

    snr_db: float
    max_abs_error: float

    @property
    def inaudible(self) -> bool:
        """Whether no sample differs by more than INAUDIBLE_ERROR; false for NaN."""
        return self.max_abs_error <= INAUDIBLE_ERROR

    def passes(self, threshold_db: float) -> bool:
        """Return whether the SNR reaches a threshold, or the error is inaudible."""
        return self.snr_db >= threshold_db or self.inaudible


def compare_codes(reference: Reference, expected: Sequence[Expected], codes: Sequence[NDArray[Any]]) -> CodeComparison:
    """Compare codes of clips with the reference's results for them.

    Args:
        reference: the source of `expected`; its codebooks decide what a tie is.
        expected: the reference's results, one for each clip.
        codes: [n, T] of each clip, n at most n_q; compared with the first n levels.
    """
    equal, ties = [], []
    for item, test in zip(expected, codes, strict=True):
        right, test = item.codes[: len(test)], test.astype(np.int64)
        equal.append(right == test)
        ties.append(tied_frames(reference.codebooks, item.latents[None], right[:, None], test[:, None])[0])
    tied = np.concatenate(ties)
    return CodeComparison(
        code_agreement=float(
            np.concatenate([(item | tie).ravel() for item, tie in zip(equal, ties, strict=True)]).mean()
        ),
        level0_agreement=float((np.concatenate([item[0] for item in equal]) | tied).mean()),
        frame_agreement=float((np.concatenate([item.all(axis=0) for item in equal]) | tied).mean()),
        ties=int(tied.sum()),
    )


def compare_audio(reference: NDArray[Any], test: NDArray[Any]) -> AudioComparison:
    """Compare a waveform [samples] with the reference's, which has the same length."""
    return AudioComparison(snr_db(reference, test), max_abs_error(reference, test))


def snr_db(reference: NDArray[Any], test: NDArray[Any]) -> float:
    """Return the signal-to-noise ratio in dB of `test` against `reference`, within +-SNR_CEILING_DB."""
    reference = reference.astype(np.float64)
    noise = float(np.square(reference - test).sum())
    signal = float(np.square(reference).sum())
    if noise == 0:
        return SNR_CEILING_DB
    if not np.isfinite(noise) or signal == 0:
        return -SNR_CEILING_DB
    return min(SNR_CEILING_DB, 10 * float(np.log10(signal / noise)))


def max_abs_error(reference: NDArray[Any], test: NDArray[Any]) -> float:
    """Return the largest absolute difference; infinity where `test` holds NaN."""
    error = float(np.abs(reference.astype(np.float64) - test).max())
    return error if np.isfinite(error) else float("inf")


def code_agreement(reference: NDArray[Any], test: NDArray[Any]) -> float:
    """Return the share of equal codes, 0 to 1. Ties count as different."""
    return float((reference == test).mean())


def tied_frames(
    codebooks: NDArray[Any], latents: NDArray[Any], reference: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Find the frames whose codes differ by a tie only.

    The first level that differs decides: after a tie the residuals differ, so that further levels may differ too.

    Args:
        codebooks: [n_q, codebook_size, D].
        latents: [B, D, T] that `reference` was made from.
        reference, test: codes [n, B, T].

    Returns:
        [B, T], true where a frame differs, and only by a tie.
    """
    ties = np.zeros(reference.shape[1:], np.bool_)
    for batch, frame in np.argwhere((reference != test).any(axis=0)):
        level = int(np.argmax(reference[:, batch, frame] != test[:, batch, frame]))
        vector = latents[batch, :, frame].astype(np.float64)
        residual = vector.copy()
        for earlier in range(level):
            residual -= codebooks[earlier][reference[earlier, batch, frame]]
        right, other = (codebooks[level][codes[level, batch, frame]].astype(np.float64) for codes in (reference, test))
        gap = abs(np.square(residual - other).sum() - np.square(residual - right).sum())
        moved = 2 * np.linalg.norm(right - other) * LATENTS_ROUNDING * np.linalg.norm(vector)
        rounded = SCORE_ROUNDING * (np.square(residual).sum() + np.square(right).sum())
        ties[batch, frame] = gap <= moved + rounded
    return ties
