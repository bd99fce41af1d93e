"""The sides that are compared, and the one that every measurement has: the bundle."""

from __future__ import annotations

import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
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

    def load(self, graph: str) -> float:
        """Creates one graph's session; returns the seconds that it took."""
        start = time.perf_counter()
        self.codec.load_graphs(graph)
        return time.perf_counter() - start

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `Side`."""
        latents = self.codec.graphs.run("encoder", waveform=waveforms, lengths=full_lengths(waveforms))[0]
        codes: NDArray[np.int64] = self.codec.graphs.arrays("quantizer", latents=latents)[0]
        return codes

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Side`."""
        latents = self.codec.graphs.run("dequantizer", codes=codes, first_level=FIRST_LEVEL)[0]
        lengths = np.full(codes.shape[1], codes.shape[2])
        waveforms: NDArray[np.float32] = self.codec.graphs.arrays("decoder", latents=latents, lengths=lengths)[0]
        return waveforms


def full_lengths(batch: NDArray[Any]) -> NDArray[np.int64]:
    """Lengths [batch] of items [batch, ..., T] that are all as long as the batch."""
    return np.full(batch.shape[0], batch.shape[-1], np.int64)


def sample_batch(config: CodecConfig, duration_s: float, batch: int) -> NDArray[np.float32]:
    """Real speech, another stretch of it in each row: [batch, 1, samples]."""
    num_samples = max(1, round(duration_s * config.sample_rate))
    return speech(batch * num_samples, config.sample_rate).reshape(batch, 1, num_samples)
