"""Measures what the look-ahead of live encoding costs: codes that differ from the whole clip's, and intelligibility.

A live stream reads only so much of the future (`dmcodec.runtime.StreamEncoder`). How much that changes depends on the
weights, so each export measures it on speech. The codes are those of a stream, but its steps run side by side: what one
step hands to the next is the state of the forward LSTMs alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER, OUTPUT, lstm_name
from dmcodec.config import CodecConfig
from dmcodec.receptive_field import encoder_reach
from dmcodec.runtime.encoder_steps import step_frames
from dmcodec.runtime.stream_decoder import Run
from dmcodec.runtime.stream_encoder import look_ahead_frames
from dmcodec.sample import speech

from .agreement import code_agreement
from .stoi import Stoi

LOOK_AHEADS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
# What STOI may be below that of the whole clip.
TOLERANCE = 0.002
MAX_DEFAULT_S = 1.0
_CLIP_S, _MAX_FRAMES = 10.0, 1000
_WINDOWS_PER_RUN = 32

Array = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class LookAheadCase:
    """A stream with a look-ahead of `look_ahead_s` against the whole clip.

    Attributes:
        look_ahead_s: seconds of look-ahead.
        code_agreement, level0_agreement: shares of equal codes, of all levels and of level 0.
        stoi: of what its codes decode to, against the original.
    """

    look_ahead_s: float
    code_agreement: float
    level0_agreement: float
    stoi: float


def measure_look_ahead(config: CodecConfig, run: Run) -> dict[str, Any]:
    """Measure the look-aheads of LOOK_AHEADS_S, and choose the default.

    Args:
        config: of the codec.
        run: runs a graph by its name.

    Returns:
        The manifest's record: `default_look_ahead_s`, `stoi_whole`, and the `cases`. Empty for an encoder that runs
        forward only and needs no look-ahead.
    """
    if not config.bidirectional:
        return {}
    context = encoder_reach(config).output_frames
    plans = [_plan(config, look_ahead_s) for look_ahead_s in LOOK_AHEADS_S]
    # No window ends where the clip ends.
    frames = max(plan.steps * plan.size + plan.look_ahead for plan in plans) + 1
    measured = min(plan.steps * plan.size for plan in plans) - context
    waveform = speech(frames * config.hop_length, config.sample_rate)[None, None]
    lengths = np.array([waveform.shape[2]])
    features = run(DOWNSAMPLER, waveform=waveform, lengths=lengths)[0]
    zeros = np.zeros((1, *features.shape[1:]), np.float32)
    ahead = run(lstm_name(0, "forward"), features=features, hidden=zeros, cell=zeros)[0]
    whole = run("quantizer", latents=run("encoder", waveform=waveform, lengths=lengths)[0])[0][:, :, :measured]
    intelligibility = Stoi(waveform[0, 0, : measured * config.hop_length], config.sample_rate)
    cases = []
    for look_ahead_s, plan in zip(LOOK_AHEADS_S, plans, strict=True):
        codes = streamed_codes(config, run, plan, features, ahead)[:, :, :measured]
        equal = code_agreement(whole, codes), code_agreement(whole[0], codes[0])
        cases.append(LookAheadCase(look_ahead_s, *equal, intelligibility(_decoded(run, codes))))
    stoi_whole = intelligibility(_decoded(run, whole))
    return {
        "default_look_ahead_s": default_look_ahead(cases, stoi_whole),
        "stoi_whole": stoi_whole,
        "cases": [dataclasses.asdict(case) for case in cases],
    }


def default_look_ahead(cases: Sequence[LookAheadCase], stoi_whole: float) -> float:
    """Return the shortest look-ahead whose STOI is at most TOLERANCE below that of the whole clip.

    It is at most MAX_DEFAULT_S: who talks to someone can't wait for longer.
    """
    enough = (case.look_ahead_s for case in cases if case.stoi >= stoi_whole - TOLERANCE)
    return min(MAX_DEFAULT_S, next(enough, MAX_DEFAULT_S))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Frames of a step and of its look-ahead, and the number of steps."""

    size: int
    look_ahead: int
    steps: int

    def windows(self, frames: Array) -> Array:
        """Cut [frames, 1, C] into windows that begin at each step: [window, steps, C]."""
        starts = range(0, self.steps * self.size, self.size)
        return np.concatenate([frames[start : start + self.size + self.look_ahead] for start in starts], axis=1)


def _plan(config: CodecConfig, look_ahead_s: float) -> _Plan:
    look_ahead = look_ahead_frames(config, look_ahead_s)
    size = step_frames(config, look_ahead)
    return _Plan(size, look_ahead, math.ceil(min(_CLIP_S * config.frame_rate, _MAX_FRAMES) / size))


def streamed_codes(config: CodecConfig, run: Run, plan: _Plan, features: Array, ahead: Array) -> NDArray[np.int64]:
    """Return the codes (n_q, 1, frames) of a stream's steps.

    Args:
        config: of the codec.
        run: runs a graph by its name.
        plan: the steps.
        features: [frames, 1, channels], of the whole clip.
        ahead: likewise, the forward outputs of the LSTM's first layer.
    """
    size, layers = plan.size, config.lstm_layers
    inputs, forward = {"features": plan.windows(features)}, plan.windows(ahead)
    for layer in range(layers):
        if layer:
            forward = _forward(run, layer, inputs, size, is_last=layer == layers - 1)
        inputs = {"forward": forward, "backward": _backward(run, layer, inputs)}
    steps = {"features": features[: plan.steps * size], **{way: _joined(item[:size]) for way, item in inputs.items()}}
    start = ((encoder_reach(config).output_frames, 0), (0, 0), (0, 0))
    padded = {name: np.pad(item, start, "reflect") for name, item in steps.items()}
    codes: NDArray[np.int64] = run("quantizer", latents=run(OUTPUT, **padded)[0])[0]
    return codes


def _joined(windows: Array) -> Array:
    """Put windows [frames, count, C] one after the other: [count * frames, 1, C]."""
    return windows.transpose(1, 0, 2).reshape(-1, 1, windows.shape[2])


def _forward(run: Run, layer: int, inputs: Mapping[str, Array], size: int, is_last: bool) -> Array:
    """Run a layer forward on windows, each from the state that the step before left."""
    name, count, channels = lstm_name(layer, "forward"), *inputs["forward"].shape[1:]
    states = [(np.zeros((1, 1, channels), np.float32),) * 2]
    outputs = []
    for index in range(count):
        step = {way: item[:size, index : index + 1] for way, item in inputs.items()}
        output, hidden, cell = run(name, **step, hidden=states[-1][0], cell=states[-1][1])
        outputs.append(output)
        states.append((hidden, cell))
    output = np.concatenate(outputs, axis=1)
    if is_last or len(inputs["forward"]) == size:
        return output
    rest = {way: item[size:] for way, item in inputs.items()}
    hidden, cell = (np.concatenate(items, axis=1) for items in zip(*states[1:], strict=True))
    return np.concatenate([output, run(name, **rest, hidden=hidden, cell=cell)[0]])


def _backward(run: Run, layer: int, inputs: Mapping[str, Array]) -> Array:
    """Run a layer backward on windows, each from zero at its end."""
    outputs = []
    for first in range(0, next(iter(inputs.values())).shape[1], _WINDOWS_PER_RUN):
        part = {way: item[:, first : first + _WINDOWS_PER_RUN] for way, item in inputs.items()}
        zeros = np.zeros((1, *next(iter(part.values())).shape[1:]), np.float32)
        outputs.append(run(lstm_name(layer, "backward"), **part, hidden=zeros, cell=zeros)[0])
    return np.concatenate(outputs, axis=1)


def _decoded(run: Run, codes: NDArray[np.int64]) -> Array:
    latents = run("dequantizer", codes=codes, first_level=np.array(0, np.int64))[0]
    decoded: Array = run("decoder", latents=latents, lengths=np.array([latents.shape[2]]))[0][0, 0]
    return decoded
