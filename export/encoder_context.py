"""Measures how much context the encoder needs until the frames in the middle of a window stop changing.

The convolutions have a fixed receptive field, but the memory of the bidirectional LSTM depends on its trained weights.
The measurement therefore runs the exported graphs on speech.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.runtime.batching import stack
from dmcodec.runtime.stream_decoder import Run
from dmcodec.sample import speech

from .agreement import max_abs_error, tied_frames
from .reference import GraphReference

CONTEXTS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
# Difference of two runs over different windows by float32 rounding alone, relative to the latents' peak.
ROUNDING = 2e-6
_CLIP_S, _CORE_S = 20.0, 1.0
_CENTRES_S = (5.0, 8.3, 11.7, 14.9)


@dataclasses.dataclass(frozen=True)
class ContextCase:
    """Windows with a context of `context_s` on each side against the whole clip.

    Attributes:
        context_s: seconds of context.
        latents_relative_error: largest error of the latents, relative to their peak.
        code_agreement, level0_agreement: shares of equal codes, of all levels and of level 0; those of a frame that
            differs by a tie only are counted as equal.
    """

    context_s: float
    latents_relative_error: float
    code_agreement: float
    level0_agreement: float


def measure_context(config: CodecConfig, run: Run) -> dict[str, Any]:
    """Measure the contexts of CONTEXTS_S, and choose the default.

    The default is the shortest context whose error is at most ROUNDING, or at most twice the error of the longest
    context; but at least one second.

    Args:
        config: of the codec.
        run: runs a graph by its name.

    Returns:
        The manifest's record: `default_context_s`, and the `cases`.
    """
    waveform = speech(round(_CLIP_S * config.sample_rate), config.sample_rate)
    cores = [_core(config, centre_s) for centre_s in _CENTRES_S]
    [latents], [codes] = _encode(run, [waveform])
    whole = [np.concatenate([item[:, first:last] for first, last in cores], axis=1) for item in (latents, codes)]
    codebooks = GraphReference("bundle", config, run).codebooks
    cases = [_case(config, run, waveform, cores, context_s, codebooks, *whole) for context_s in CONTEXTS_S]
    threshold = max(ROUNDING, 2 * cases[-1].latents_relative_error)
    enough = next(case.context_s for case in cases if case.latents_relative_error <= threshold)
    return {"default_context_s": max(1.0, enough), "cases": [dataclasses.asdict(case) for case in cases]}


def _case(
    config: CodecConfig,
    run: Run,
    waveform: NDArray[np.float32],
    cores: list[tuple[int, int]],
    context_s: float,
    codebooks: NDArray[np.float32],
    latents: NDArray[Any],
    codes: NDArray[Any],
) -> ContextCase:
    """Compare windows around `cores` with the `latents` and `codes` of the whole clip at the same frames."""
    context, hop = max(1, round(context_s * config.frame_rate)), config.hop_length
    windows = [waveform[(first - context) * hop : (last + context) * hop] for first, last in cores]
    got_latents, got_codes = (
        np.concatenate([item[:, context : item.shape[1] - context] for item in items], axis=1)
        for items in _encode(run, windows)
    )
    error = max_abs_error(latents, got_latents) / float(np.abs(latents).max())
    tied = tied_frames(codebooks, latents[None], codes[:, None], got_codes[:, None])[0]
    equal = (codes == got_codes) | tied
    return ContextCase(context_s, error, float(equal.mean()), float(equal[0].mean()))


def _core(config: CodecConfig, centre_s: float) -> tuple[int, int]:
    """Return the first and last (exclusive) frame of the core around a time; all cores have the same length."""
    first = round((centre_s - _CORE_S / 2) * config.frame_rate)
    return first, first + max(1, round(_CORE_S * config.frame_rate))


def _encode(run: Run, waveforms: list[NDArray[np.float32]]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Encode waveforms [samples] as one batch; return latents [D, T] and codes [n_q, T] of each."""
    batch, lengths = stack([waveform[None] for waveform in waveforms])
    latents = run("encoder", waveform=batch, lengths=lengths)[0]
    codes = run("quantizer", latents=latents)[0]
    return list(latents), list(codes.transpose(1, 0, 2))
