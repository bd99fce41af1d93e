"""Long clips in windows: each is run with context on both sides, whose codes are thrown away."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.config import CodecConfig

from .batching import WINDOW_S


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Frames that a window adds (`core_frames`), and frames on each side of them that are run and thrown away."""

    core_frames: int
    context_frames: int
    hop_length: int

    @property
    def num_samples(self) -> int:
        """Samples of a whole window."""
        return (self.core_frames + 2 * self.context_frames) * self.hop_length

    @property
    def overhead(self) -> float:
        """Share of the work that goes into context."""
        return 2 * self.context_frames / (self.core_frames + 2 * self.context_frames)


def window_plan(config: CodecConfig, context_s: float) -> WindowPlan:
    """The windows of long clips, with `context_s` seconds of context."""
    core, context = (round(seconds * config.frame_rate) for seconds in (WINDOW_S, context_s))
    return WindowPlan(max(1, core), context, config.hop_length)


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of waveform to run, and which of its frames count."""

    samples: Waveform
    first_frame: int
    num_frames: int


class Windows:
    """Cuts a waveform that comes in pieces into windows; holds no more of it than two windows.

    Windows begin on frame borders, and the last one ends where the clip ends, so that every frame is computed as in the
    whole clip, but for what the context doesn't reach.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._pieces: list[Waveform] = []
        self._held_from = 0  # sample index of the first piece
        self._held = 0  # samples in the pieces
        self._next_frame = 0  # first frame of the next window's core
        self.num_samples = 0

    def push(self, samples: Waveform) -> Iterator[Window]:
        """Takes more samples; yields the windows that can be run now."""
        self._pieces.append(samples)
        self._held += len(samples)
        self.num_samples += len(samples)
        plan = self._plan
        # A window that ends before the clip does needs one sample more than it holds, to know that.
        while self.num_samples > (self._next_frame + plan.core_frames + plan.context_frames) * plan.hop_length:
            yield self._cut(self._next_frame + plan.core_frames)

    def finish(self) -> Iterator[Window]:
        """Yields the remaining windows; the last one ends with the clip."""
        total = -(-self.num_samples // self._plan.hop_length)
        while self._next_frame < total:
            yield self._cut(min(total, self._next_frame + self._plan.core_frames))

    def _cut(self, stop_frame: int) -> Window:
        plan = self._plan
        first = max(0, self._next_frame - plan.context_frames)
        end = min(self.num_samples, (stop_frame + plan.context_frames) * plan.hop_length)
        held = np.concatenate(self._pieces)
        samples = held[first * plan.hop_length - self._held_from : end - self._held_from]
        window = Window(samples, self._next_frame - first, stop_frame - self._next_frame)
        self._next_frame = stop_frame
        keep_from = max(0, stop_frame - plan.context_frames) * plan.hop_length
        rest = held[keep_from - self._held_from :]
        self._pieces, self._held_from, self._held = [rest], keep_from, len(rest)
        return window
