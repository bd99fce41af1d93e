"""The sides that are compared, and the one that every measurement has: the bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.config import CodecConfig
from dmcodec.runtime.codec import Codec
from dmcodec.sample import speech
from dmcodec.tokens import Tokens

from .interface import side_name

ENCODE_GRAPHS = ("encoder", "quantizer")
DECODE_GRAPHS = ("dequantizer", "decoder")
FIRST_LEVEL = np.array(0, np.int64)


def open_codec(
    bundle: str | Path,
    backend: str,
    provider: str | None,
    threads: int | None,
    engine_cache: Path | None = None,
) -> Codec:
    """`Codec.load`, without what the backend has no use for: only onnxruntime has CPU threads."""
    options: dict[str, Any] = {}
    if provider is not None:
        options["provider"] = provider
    if backend == "onnxruntime":
        options["threads"] = threads
    return Codec.load(bundle, backend, engine_cache=engine_cache, **options)


class BundleSide:
    """The bundle as users call it: `Codec.encode_batch` and `Codec.decode_batch`."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.name = side_name(codec.backend.name, codec.backend.provider)

    def load(self, graph: str) -> float:
        """Creates one graph's session; returns the seconds that it took."""
        start = time.perf_counter()
        self.codec.load_graphs(graph)
        return time.perf_counter() - start

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `Side`."""
        batch = self.codec.encode_batch(list(waveforms[:, 0]), self.codec.sample_rate)
        return np.stack([tokens.codes for tokens in batch], axis=1).astype(np.int64)

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Side`."""
        batch = [Tokens.from_codes(codes[:, row], self.codec.config) for row in range(codes.shape[1])]
        return np.stack(self.codec.decode_batch(batch))[:, None]


def full_lengths(batch: NDArray[Any]) -> NDArray[np.int64]:
    """Lengths [batch] of items [batch, ..., T] that are all as long as the batch."""
    return np.full(batch.shape[0], batch.shape[-1], np.int64)


def sample_batch(config: CodecConfig, duration_s: float, batch: int) -> NDArray[np.float32]:
    """Real speech, another stretch of it in each row: [batch, 1, samples]."""
    num_samples = max(1, round(duration_s * config.sample_rate))
    return speech(batch * num_samples, config.sample_rate).reshape(batch, 1, num_samples)


class BundleModel:
    """A bundle on ONNX Runtime, on the CPU."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    @property
    def config(self) -> CodecConfig:
        """The codec's configuration."""
        return self._codec.config

    @property
    def description(self) -> str:
        """Kind, model and precision."""
        manifest = self._codec.bundle.manifest
        return f"bundle, model {manifest.model_id}, {manifest.precision}, onnxruntime"

    def encode(self, waveform: Waveform, n_q: int) -> Tokens:
        return self._codec.encode(waveform, self._codec.sample_rate, n_q)

    def decode(self, tokens: Tokens) -> Waveform:
        return self._codec.decode(tokens)
