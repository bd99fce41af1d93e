"""Helpers of the tests of live encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.export.agreement import tied_frames
from dmcodec.export.graphs import build_graphs
from dmcodec.nn import DMCodec
from dmcodec.runtime import StreamEncoder
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.runtime.stream_decoder import Run

Codes = NDArray[np.uint16]
Samples = NDArray[Any]


def cut(samples: Samples, sizes: list[int]) -> list[Samples]:
    """The samples in pieces of the given sizes, again and again."""
    pieces: list[Samples] = []
    start = 0
    while start < samples.shape[-1]:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(samples[..., start : start + size])
        start += size
    return pieces


def streamed(stream: StreamEncoder, pieces: list[Samples]) -> Codes:
    codes = [stream.push(piece) for piece in pieces]
    return np.concatenate([*codes, stream.finish()], axis=-1)


class LatentsOf:
    """Runs graphs, and keeps the latents that go to the quantizer."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._parts: list[NDArray[np.float32]] = []

    def __call__(self, name: str, **inputs: Any) -> Any:
        if name == "quantizer":
            self._parts.append(inputs["latents"])
        return self._run(name, **inputs)

    def take(self) -> NDArray[np.float32]:
        """The latents (1, dimension, frames) since the last call."""
        parts, self._parts = self._parts, []
        return np.concatenate(parts, axis=2)


def assert_whole(run: Run, model: DMCodec, waveform: Samples, latents: NDArray[np.float32], got: Codes) -> None:
    """Latents and codes are those of the whole clip, rounding and ties aside."""
    whole = run("encoder", waveform=waveform[None, None], lengths=np.array([len(waveform)]))[0]
    np.testing.assert_allclose(latents, whole, rtol=0, atol=5e-6 * float(np.abs(whole).max()))
    codes = run("quantizer", latents=whole)[0]
    tied = tied_frames(model.quantizer.codebooks().numpy(), whole, codes, got[:, None].astype(np.int64))
    np.testing.assert_array_equal(np.where(tied, codes, got[:, None])[:, 0], codes[:, 0])


def runner(model: DMCodec) -> Run:
    """The graphs of a model, without an export."""
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: import_onnxruntime().InferenceSession(graph.model.SerializeToString(), options, ["CPUExecutionProvider"])
        for name, graph in build_graphs(model, "fp32").items()
    }
    return lambda name, **inputs: sessions[name].run(None, inputs)
