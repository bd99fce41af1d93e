"""Helpers of the tests of live encoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dmcodec.export.agreement import tied_frames
from dmcodec.export.graphs import build_graphs
from dmcodec.nn import DMCodec
from dmcodec.runtime import StreamEncoder
from dmcodec.runtime.stream_decoder import Run

Codes = NDArray[np.uint16]
Samples = NDArray[Any]


def cut(samples: Samples, sizes: list[int]) -> list[Samples]:
    """The samples in pieces of the given sizes, again and again."""
    pieces, start = [], 0
    while start < samples.shape[-1]:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(samples[..., start : start + size])
        start += size
    return pieces


def streamed(stream: StreamEncoder, pieces: list[Samples]) -> Codes:
    codes = [stream.push(piece) for piece in pieces]
    return np.concatenate([*codes, stream.finish()], axis=-1)


def assert_ties_aside(run: Run, model: DMCodec, waveform: Samples, got: Codes) -> None:
    """The codes are those of the whole clip, except where two entries are equally near."""
    latents = run("encoder", waveform=waveform[None, None], lengths=np.array([len(waveform)]))[0]
    whole = run("quantizer", latents=latents)[0]
    assert got.shape == whole[:, 0].shape
    tied = tied_frames(model.quantizer.codebooks().numpy(), latents, whole, got[:, None].astype(np.int64))
    np.testing.assert_array_equal(np.where(tied, whole, got[:, None])[:, 0], whole[:, 0])


def runner(model: DMCodec) -> Run:
    """The graphs of a model, without an export."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(graph.model.SerializeToString(), options, ["CPUExecutionProvider"])
        for name, graph in build_graphs(model, "fp32").items()
    }
    return lambda name, **inputs: sessions[name].run(None, inputs)
