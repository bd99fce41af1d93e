"""Decoding of whole clips on the CPU: the LSTM over all frames of a batch, then the layers after it in steps.

The steps keep what a core works on in its cache. Where the graphs have several threads, the clip is cut into stretches
that run at the same time on one thread each, which wait for each other less than threads within an operator do.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import UPSAMPLER_STEPS
from dmcodec.config import CodecConfig

from .backend import Graphs
from .calls import run_alone
from .frames import reflected
from .stream_decoder import initial_state
from .upsampling import Upsampling
from .workers import Workers

MIN_STEPPED_FRAMES = 50  # the two ends of a clip run in windows

Array = NDArray[np.float32]


class WholeDecoder:
    """Decodes batches of clips.

    Args:
        config: of the codec.
        graphs: run the LSTM.
        single: run the stretches; `graphs` itself where it has one thread.
        workers: stretches that run at the same time, where `graphs` is another one than `single`.
    """

    def __init__(self, config: CodecConfig, graphs: Graphs, single: Graphs, workers: int) -> None:
        self._config, self._graphs, self._single = config, graphs, single
        self._workers = 1 if graphs is single else workers
        self._upsampling = Upsampling(config, graphs.state_size(UPSAMPLER_STEPS))

    def decode(self, latents: Array, lengths: NDArray[np.int64]) -> Iterator[Array]:
        """Yield the waveform (samples,) of each clip of latents [B, dimension, T], of which `lengths` [B] count."""
        reach, start = self._upsampling.reach, initial_state(self._config, len(lengths))
        left, right = reach.front, reach.front_future
        padded = np.zeros((*latents.shape[:2], left + latents.shape[2] + right), np.float32)
        for row, clip, length in zip(padded, latents, lengths, strict=True):
            row[:, : left + length + right] = reflected(clip[:, :length], left, right, axis=1)
        state = {"hidden": start.hidden, "cell": start.cell}
        features = self._graphs.arrays("decoder_recurrent", latents=padded, **state)[0]
        with Workers.start(self._workers) as workers:
            for clip, length in zip(features, lengths, strict=True):
                yield self._audio(workers, clip[None, :, :length])

    def _audio(self, workers: Workers, features: Array) -> Array:
        cuts = [features.shape[2] * index // self._workers for index in range(self._workers + 1)]

        def stretch(ends: tuple[int, int]) -> Array:
            return run_alone(self._upsampling.audio(features, *ends), self._single.arrays)[0]

        return np.concatenate(list(workers.in_order(stretch, pairwise(cuts))))
