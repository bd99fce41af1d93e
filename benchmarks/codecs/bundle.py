"""A bundle measured as its users call it, on any backend."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.runtime.codec import Codec
from dmcodec.tokens import Tokens

ENCODE_GRAPHS = ("encoder", "quantizer")
DECODE_GRAPHS = ("dequantizer", "decoder")


def open_bundle(
    bundle: str | Path,
    backend: str = "onnxruntime",
    provider: str | None = None,
    threads: int | None = None,
    engine_cache: Path | None = None,
    device_id: int | None = None,
) -> Codec:
    """Load a bundle with `Codec.load`, without the options that the backend doesn't take (TensorRT: `threads`)."""
    options: dict[str, Any] = {}
    if provider is not None:
        options["provider"] = provider
    if backend == "onnxruntime":
        options["threads"] = threads
    return Codec.load(bundle, backend, engine_cache=engine_cache, device_id=device_id, **options)


def bundle_codec_name(backend: str, provider: str | None) -> str:
    """Return the name in results of a bundle on a backend: `onnxruntime-cpu`, `tensorrt`, ..."""
    return f"{backend}-{provider or 'cpu'}" if backend == "onnxruntime" else backend


class BundleCodec:
    """A bundle through `Codec.encode_batch` and `Codec.decode_batch`. Implements `MeasuredCodec`."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.name = bundle_codec_name(codec.backend.name, codec.backend.provider)
        manifest = codec.bundle.manifest
        self.description = f"bundle, model {manifest.model_id}, {manifest.precision}, {codec.backend.name}"
        self.sample_rate = codec.sample_rate
        self.hop_length = codec.hop_length
        self.frame_rate = codec.frame_rate
        self.n_q = codec.n_q
        self.codebook_size = codec.codebook_size

    def load(self, graph: str) -> float:
        """Create one graph's session, and return the seconds that this took."""
        start = time.perf_counter()
        self.codec.load_graphs(graph)
        return time.perf_counter() - start

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode [B, 1, samples] to codes [n_q, B, frames]; see `MeasuredCodec.encode`."""
        batch = self.codec.encode_batch(list(waveforms[:, 0]), self.sample_rate, n_q)
        return np.stack([tokens.codes for tokens in batch], axis=1).astype(np.int64)

    def latents(self, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode [B, 1, samples] to latents [B, dimension, frames]."""
        return np.stack([self.codec.latents(waveform, self.sample_rate) for waveform in waveforms[:, 0]])

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode codes [n_q, B, frames] to [B, 1, frames * hop_length]; see `MeasuredCodec.decode`."""
        batch = [Tokens.from_codes(codes[:, row], self.codec.config) for row in range(codes.shape[1])]
        return np.stack(self.codec.decode_batch(batch))[:, None]
