"""The encoder's layers before the LSTM on a stretch of a clip: samples -> features, as calls of graphs.

Between the clip's ends they run in steps with a state (DOWNSAMPLER_STEPS), where the bundle has the graph and the
backend runs it. At the ends, where the padding is a reflection, they run on a window with its context.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER, DOWNSAMPLER_STEPS
from dmcodec.config import CodecConfig
from dmcodec.receptive_field import encoder_reach

from .calls import Call, Step

Array = NDArray[np.float32]
STEP_FRAMES = 25  # what is computed of so many frames fits the cache of a core


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Samples of a clip, and the frames whose features are asked for. Frames count from the first sample.

    Attributes:
        samples: [B, n]; they begin at the clip's first sample, or at least `Downsampling.past_frames` before `first`.
        first, stop: the frames.
        at_start: whether the samples begin where the clip does. They end where it does, or at least
            `encoder_reach(config).samples_of(stop)` does.
    """

    samples: Array
    first: int
    stop: int
    at_start: bool


class Downsampling:
    """Runs the layers before the LSTM.

    Args:
        config: of the codec.
        columns: size of the state of DOWNSAMPLER_STEPS; 0 runs windows only.
    """

    def __init__(self, config: CodecConfig, columns: int) -> None:
        self._columns, self._hop = columns, config.hop_length
        self.reach = encoder_reach(config)
        self._context = -(-self.reach.past_samples // self._hop)
        # Frames before the first that is valid after a state of zeros.
        self._warm_up = -(-(self.reach.past_samples + self.reach.future_samples) // self._hop)
        self.past_frames = max(self._context, self._warm_up)  # also for windows: states go from one to the other

    def features(self, stretch: Stretch, state: Any = None) -> Step[tuple[Array, Any]]:
        """Compute the features of a stretch.

        Args:
            stretch: the samples and the frames.
            state: what the last stretch left, which ended at frame `stretch.first`; None where there is none.

        Returns:
            Features [frames, B, channels], and the state for the stretch that follows: None after a window.
        """
        first, stop = stretch.first, stretch.stop
        low = max(first, self._warm_up) if stretch.at_start else first  # before it, the clip's beginning is in reach
        high = min(stop, (stretch.samples.shape[1] - self.reach.future_samples) // self._hop)
        if not self._columns or high - low <= 0:
            return (yield from self._window(stretch, first, stop)), None
        parts = []
        if first < low:
            parts.append((yield from self._window(stretch, first, low)))
        middle, state = yield from self._steps(stretch, low, high, None if first < low else state)
        parts.append(middle)
        if high < stop:
            parts.append((yield from self._window(stretch, high, stop)))
            state = None
        return parts[0] if len(parts) == 1 else np.concatenate(parts), state

    def _steps(self, stretch: Stretch, low: int, high: int, state: Any) -> Step[tuple[Array, Any]]:
        samples, ahead = stretch.samples, self.reach.future_samples
        begin = low if state is not None else low - self._warm_up
        if state is None:
            state = np.zeros((len(samples), self._columns), np.float32)
        parts = []
        for start in range(begin, high, STEP_FRAMES):
            end = min(high, start + STEP_FRAMES)
            waveform = samples[:, None, start * self._hop + ahead : end * self._hop + ahead]
            features, state = yield Call(DOWNSAMPLER_STEPS, {"waveform": waveform, "state": state})
            parts.append(features)
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[low - begin :], state

    def _window(self, stretch: Stretch, first: int, stop: int) -> Step[Array]:
        start = max(0, first - self._context)
        end = self.reach.samples_of(stop, self._hop)
        window = stretch.samples[:, start * self._hop : end]
        lengths = np.full(len(window), window.shape[1], np.int64)
        [features] = yield Call(DOWNSAMPLER, {"waveform": window[:, None], "lengths": lengths})
        new: Array = features[first - start : stop - start]
        return new
