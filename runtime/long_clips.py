"""Windows of long clips: each is encoded with context on both sides, whose codes are discarded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError

from .batching import WINDOW_S

MAX_CONTEXT_S = 60.0


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """How a long clip is cut.

    Attributes:
        core_frames: frames of a window whose codes are kept.
        context_frames: frames before them, and by default also after them, that are run and discarded.
        hop_length: samples per frame.
        frames_after: frames after them that are run and discarded, where these are others.
    """

    core_frames: int
    context_frames: int
    hop_length: int
    frames_after: int | None = None

    @property
    def after(self) -> int:
        """Frames after a window's core that are run and discarded."""
        return self.context_frames if self.frames_after is None else self.frames_after

    @property
    def num_samples(self) -> int:
        """Samples of a window with its context."""
        return (self.core_frames + self.context_frames + self.after) * self.hop_length

    @property
    def overhead(self) -> float:
        """Share of the computed frames that is context."""
        context = self.context_frames + self.after
        return context / (self.core_frames + context)


def window_plan(config: CodecConfig, context_s: float) -> WindowPlan:
    """Return the plan for windows with `context_s` seconds of context; ArgumentError if that is out of range."""
    is_number = isinstance(context_s, (int, float, np.integer, np.floating)) and not isinstance(context_s, bool)
    if not is_number or not 0 <= context_s <= MAX_CONTEXT_S:
        raise ArgumentError(f"context_s must be 0 to {MAX_CONTEXT_S:g} seconds, not {context_s!r}")
    core, context = (round(seconds * config.frame_rate) for seconds in (WINDOW_S, context_s))
    return WindowPlan(max(1, core), context, config.hop_length)


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a waveform.

    Attributes:
        samples: (samples,) float32, with the context.
        first_frame: first frame of the window whose codes are kept.
        num_frames: frames whose codes are kept.
    """

    samples: Waveform
    first_frame: int
    num_frames: int


class Windows:
    """Cuts a waveform that arrives in blocks into windows. It holds at most two windows of samples.

    Windows start at frame boundaries, and the last one ends with the clip. So a frame of a window differs from the same
    frame of the whole clip only by what lies outside the context.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._blocks: list[Waveform] = []
        self._first_sample = 0  # of the held blocks, counted in the clip
        self._next_frame = 0  # first frame of the next window's core
        self._num_samples = 0  # received

    def push(self, samples: Waveform) -> Iterator[Window]:
        """Add a block (samples,); yield the windows that are complete."""
        self._blocks.append(samples)
        self._num_samples += len(samples)
        plan = self._plan
        # One sample more than the window holds shows that the clip does not end with it.
        while self._num_samples > (self._next_frame + plan.core_frames + plan.after) * plan.hop_length:
            yield self._cut(self._next_frame + plan.core_frames)

    def finish(self) -> Iterator[Window]:
        """End the clip; yield the remaining windows."""
        total = -(-self._num_samples // self._plan.hop_length)
        while self._next_frame < total:
            yield self._cut(min(total, self._next_frame + self._plan.core_frames))

    def _cut(self, stop_frame: int) -> Window:
        """Return the window whose core ends before `stop_frame`; discard the samples that later windows don't need."""
        plan = self._plan
        held = np.concatenate(self._blocks)
        first_frame = max(0, self._next_frame - plan.context_frames)
        end = min(self._num_samples, (stop_frame + plan.after) * plan.hop_length)
        samples = held[first_frame * plan.hop_length - self._first_sample : end - self._first_sample]
        window = Window(samples, self._next_frame - first_frame, stop_frame - self._next_frame)
        keep_from = max(0, stop_frame - plan.context_frames) * plan.hop_length
        self._blocks = [held[keep_from - self._first_sample :]]
        self._first_sample, self._next_frame = keep_from, stop_frame
        return window
