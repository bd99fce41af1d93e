"""How much context the encoder needs until the frames in the middle of a window stop changing, measured on speech.

The convolutions reach a fixed distance, but the bidirectional LSTM remembers as long as its trained weights make it: so
this is a measurement, made with the exported graphs themselves.
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

from .agreement import code_agreement, max_abs_error

CONTEXTS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
# float32 rounding, relative to the latents' peak: as near as two runs over different stretches come
ROUNDING = 2e-6
_CLIP_S, _CORE_S = 20.0, 1.0
_CENTRES_S = (5.0, 8.3, 11.7, 14.9)


@dataclasses.dataclass(frozen=True)
class ContextCase:
    """Windows with `context_s` on each side against the whole clip; the error is relative to the latents' peak."""

    context_s: float
    latents_relative_error: float
    code_agreement: float
    level0_agreement: float


def measure_context(config: CodecConfig, run: Run) -> dict[str, Any]:
    """The manifest's record: a case for each context length, and the default.

    The default is the shortest measured context whose latents differ by no more than rounding, or than twice what the
    longest leaves; but at least a second.
    """
    waveform = speech(round(_CLIP_S * config.sample_rate), config.sample_rate)
    cores = [_core(config, centre_s) for centre_s in _CENTRES_S]
    [latents], [codes] = _encode(run, [waveform])
    whole = [np.concatenate([item[:, first:last] for first, last in cores], axis=1) for item in (latents, codes)]
    cases = [_case(config, run, waveform, cores, context_s, *whole) for context_s in CONTEXTS_S]
    bound = max(ROUNDING, 2 * cases[-1].latents_relative_error)
    enough = next(case.context_s for case in cases if case.latents_relative_error <= bound)
    return {"default_context_s": max(1.0, enough), "cases": [dataclasses.asdict(case) for case in cases]}


def _case(
    config: CodecConfig,
    run: Run,
    waveform: NDArray[np.float32],
    cores: list[tuple[int, int]],
    context_s: float,
    latents: NDArray[Any],
    codes: NDArray[Any],
) -> ContextCase:
    """Windows around `cores` against the whole clip's `latents` and `codes` there."""
    context, hop = max(1, round(context_s * config.frame_rate)), config.hop_length
    windows = [waveform[(first - context) * hop : (last + context) * hop] for first, last in cores]
    got_latents, got_codes = (
        np.concatenate([item[:, context : item.shape[1] - context] for item in items], axis=1)
        for items in _encode(run, windows)
    )
    error = max_abs_error(latents, got_latents) / float(np.abs(latents).max())
    return ContextCase(context_s, error, code_agreement(codes, got_codes), code_agreement(codes[0], got_codes[0]))


def _core(config: CodecConfig, centre_s: float) -> tuple[int, int]:
    """First and last (exclusive) frame of a core; all are equally long."""
    first = round((centre_s - _CORE_S / 2) * config.frame_rate)
    return first, first + max(1, round(_CORE_S * config.frame_rate))


def _encode(run: Run, waveforms: list[NDArray[np.float32]]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Latents [D, T] and codes [n_q, T] of each waveform."""
    batch, lengths = stack([waveform[None] for waveform in waveforms])
    latents = run("encoder", waveform=batch, lengths=lengths)[0]
    codes = run("quantizer", latents=latents)[0]
    return list(latents), list(codes.transpose(1, 0, 2))
