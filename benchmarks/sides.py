"""The sides that are compared, and the one that every measurement has: the bundle."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.runtime.backend import Runner
from dmcodec.runtime.codec import Codec
from dmcodec.sample import speech

ENCODE_GRAPHS = ("encoder", "quantizer")
DECODE_GRAPHS = ("dequantizer", "decoder")
FIRST_LEVEL = np.array(0, np.int64)


class Side(Protocol):
    """Something that encodes and decodes a batch of equally long waveforms."""

    @property
    def name(self) -> str:
        """How it is called in results."""

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """Waveforms [B, 1, samples] -> codes [n_q, B, frames], both in host memory."""

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes [n_q, B, frames] -> waveforms [B, 1, frames * hop_length], both in host memory."""


class BundleSide:
    """The bundle's graphs on the codec's backend. What passes between two graphs stays on the device."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.name = codec.backend.name
        self.runners: dict[str, Runner] = {}

    def load(self, graph: str) -> float:
        """Creates one graph's session; returns the seconds that it took."""
        spec = self.codec.bundle.manifest.graphs[graph]
        start = time.perf_counter()
        self.runners[graph] = self.codec.backend.load(self.codec.bundle.graph_path(graph), spec)
        return time.perf_counter() - start

    def load_all(self, graphs: Iterable[str]) -> None:
        """Creates the sessions of several graphs."""
        for graph in graphs:
            self.load(graph)

    def run_graph(self, graph: str, **inputs: NDArray[Any]) -> NDArray[Any]:
        """Runs one loaded graph on arrays."""
        output: NDArray[Any] = self.codec.backend.to_array(self.runners[graph].run(inputs))
        return output

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `Side`."""
        latents = self.runners["encoder"].run({"waveform": waveforms})
        codes: NDArray[np.int64] = self.codec.backend.to_array(self.runners["quantizer"].run({"latents": latents}))
        return codes

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Side`."""
        latents = self.runners["dequantizer"].run({"codes": codes, "first_level": FIRST_LEVEL})
        waveforms: NDArray[np.float32] = self.codec.backend.to_array(self.runners["decoder"].run({"latents": latents}))
        return waveforms


def sample_batch(config: CodecConfig, duration_s: float, batch: int) -> NDArray[np.float32]:
    """Real speech, another stretch of it in each row: [batch, 1, samples]."""
    num_samples = max(1, round(duration_s * config.sample_rate))
    return speech(batch * num_samples, config.sample_rate).reshape(batch, 1, num_samples)
