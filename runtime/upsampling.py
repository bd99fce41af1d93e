"""The decoder's layers after the LSTM: features -> audio, as calls of graphs.

Between the clip's ends they run in steps with a state (UPSAMPLER_STEPS), where the bundle has the graph and the backend
runs it. At the ends, where the padding is a reflection, they run on a window with its context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import UPSAMPLER_STEPS
from dmcodec.config import CodecConfig
from dmcodec.receptive_field import decoder_reach

from .calls import Call, Step
from .frames import part

STEP_FRAMES = 25  # what is computed of so many frames fits the cache of a core
Array = NDArray[np.float32]


class Upsampling:
    """Runs the layers after the LSTM.

    Args:
        config: of the codec.
        columns: size of the state of UPSAMPLER_STEPS; 0 runs windows only.
    """

    def __init__(self, config: CodecConfig, columns: int) -> None:
        self.columns, self.reach, self._hop = columns, decoder_reach(config), config.hop_length

    def audio(self, features: Array, first: int, stop: int) -> Step[Array]:
        """Compute the audio of a stretch of a clip.

        Args:
            features: [B, channels, frames] of the whole clip.
            first, stop: the frames of the stretch.

        Returns:
            [B, samples].
        """
        low, high = max(first, self.reach.past), min(stop, features.shape[2] - self.reach.future)
        if not self.columns or high <= low:
            return (yield from self._window(features, first, stop))
        parts = []
        if first < low:
            parts.append((yield from self._window(features, first, low)))
        fed = features[:, :, low - self.reach.past : high + self.reach.future]
        waveform, _ = yield from self.steps(fed, None)
        parts.append(waveform[:, (self.reach.past + self.reach.future) * self._hop :])
        if high < stop:
            parts.append((yield from self._window(features, high, stop)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def steps(self, features: Any, state: Any) -> Step[tuple[Array, Any]]:
        """Run steps over frames that follow those of `state`; after None, a state of zeros, they come first.

        Returns:
            The waveform [B, samples] of as many frames, `reach.future` frames earlier, and the new state. After a state
            of zeros the first `reach.past` frames, and those before the first, are not valid.
        """
        if state is None:
            state = np.zeros((features.shape[0], self.columns), np.float32)
        parts = []
        for start in range(0, features.shape[2], STEP_FRAMES):
            piece = part(features, start, min(start + STEP_FRAMES, features.shape[2]))
            waveform, state = yield Call(UPSAMPLER_STEPS, {"features": piece, "state": state})
            parts.append(waveform)
        return (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1))[:, 0], state

    def _window(self, features: Array, first: int, stop: int) -> Step[Array]:
        start = max(0, first - self.reach.past)
        window = features[:, :, start : max(stop + self.reach.future, self.reach.head)]
        [waveform] = yield Call("decoder_upsampler", {"features": window})
        audio: Array = waveform[:, 0, (first - start) * self._hop : (stop - start) * self._hop]
        return audio
