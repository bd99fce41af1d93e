"""What can be measured as a codec, and the names of what can be measured."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError
from dmcodec.tokens import Tokens

TENSORRT = "tensorrt"
TORCH_EAGER = "torch-eager"
TORCH_COMPILE = "torch-compile"
TORCH_PEERS = (TORCH_EAGER, TORCH_COMPILE)
# Peers that are the same bundle run by something else: backend and provider.
BUNDLE_PEERS: dict[str, tuple[str, str | None]] = {
    "onnxruntime-cpu": ("onnxruntime", "cpu"),
    "onnxruntime-cuda": ("onnxruntime", "cuda"),
    "onnxruntime-tensorrt": ("onnxruntime", "tensorrt"),
    TENSORRT: (TENSORRT, None),
}
# What --against takes, and the peers that it stands for.
PEERS = {
    "torch": TORCH_PEERS,
    **{name: (name,) for name in (*TORCH_PEERS, *BUNDLE_PEERS)},
}


def side_name(backend: str, provider: str | None) -> str:
    """How a bundle on a backend is called in results: `onnxruntime-cpu`, `tensorrt`, ..."""
    return f"{backend}-{provider or 'cpu'}" if backend == "onnxruntime" else backend


def runs_on_gpu(side: str) -> bool:
    """Whether a side of a bundle runs on a GPU."""
    return side != "onnxruntime-cpu"


class Side(Protocol):
    """Something that encodes and decodes a batch of equally long waveforms."""

    @property
    def name(self) -> str:
        """How it is called in results."""

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """Waveforms [B, 1, samples] -> codes [n_q, B, frames], both in host memory."""

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes [n_q, B, frames] -> waveforms [B, 1, frames * hop_length], both in host memory."""


class CodecModel(Protocol):
    """Waveforms to tokens and back."""

    @property
    def config(self) -> CodecConfig: ...

    @property
    def description(self) -> str: ...

    def encode(self, waveform: Waveform, n_q: int) -> Tokens:
        """Waveform (samples,) at the codec's sample rate -> tokens of `n_q` levels."""

    def decode(self, tokens: Tokens) -> Waveform:
        """Tokens -> waveform (num_samples,) at the codec's sample rate."""


def levels_of(config: CodecConfig, wanted: tuple[int, ...], title: str) -> tuple[int, ...]:
    """The numbers of levels to report, all of them by default; ArgumentError where the codec has fewer."""
    for n_q in wanted:
        if n_q > config.n_q:
            raise ArgumentError(f"--n-q {n_q}: {title} has {config.n_q} levels")
    return wanted or (config.n_q,)
