"""Measures of how close two results are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from dmcodec.nn import DMCodec

# FOLDED: Which differing codes are ties: two entries equally near, up to float32 rounding, of which each side took one.


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


# A tie: moving the latents by this share of their length (114 dB below them) makes the two entries equally near,
LATENTS_ROUNDING = 2e-6
# or their scores |e|^2 - 2 x.e differ by less than float32 rounding can make.
SCORE_ROUNDING = 1e-6


def differs_by_tie(
    codec: DMCodec, latents: Tensor, reference: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """`tied_frames` for the codebooks of a torch model."""
    return tied_frames(codec.quantizer.codebooks().numpy(), latents.numpy(), reference, test)


def tied_frames(
    codebooks: NDArray[Any], latents: NDArray[Any], reference: NDArray[np.int64], test: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Frames whose codes differ first at a tie; what follows it in the frame differs rightly.

    Args:
        codebooks: [n_q, codebook_size, D].
        latents: [B, D, T] that `reference` was made from.
        reference, test: codes [n_q, B, T].

    Returns:
        [B, T], true where the frame differs, and only because of a tie.
    """
    ties = np.zeros(reference.shape[1:], np.bool_)
    for batch, frame in np.argwhere((reference != test).any(axis=0)):
        level = int(np.argmax(reference[:, batch, frame] != test[:, batch, frame]))
        vector = latents[batch, :, frame].astype(np.float64)
        residual = vector.copy()
        for earlier in range(level):
            residual -= codebooks[earlier][reference[earlier, batch, frame]]
        ours, theirs = (codebooks[level][codes[level, batch, frame]].astype(np.float64) for codes in (reference, test))
        gap = abs(np.square(residual - theirs).sum() - np.square(residual - ours).sum())
        moved = 2 * np.linalg.norm(ours - theirs) * LATENTS_ROUNDING * np.linalg.norm(vector)
        rounded = SCORE_ROUNDING * (np.square(residual).sum() + np.square(ours).sum())
        ties[batch, frame] = gap <= moved + rounded
    return ties
