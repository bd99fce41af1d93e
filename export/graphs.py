"""The graphs of a bundle, each from its part of the torch model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dmcodec.bundle import TensorSpec
from dmcodec.export.codebooks import add_codebook, add_codebooks, codebook_name, stored_codebooks
from dmcodec.export.graph_builder import Graph, GraphBuilder
from dmcodec.export.layers import Signal, add_layers, array
from dmcodec.export.stream_graphs import recurrent_graph, upsampler_graph
from dmcodec.nn import DMCodec


def build_graphs(codec: DMCodec, precision: str = "fp32") -> dict[str, Graph]:
    """All graphs of a bundle.

    Args:
        codec: the model.
        precision: one of `dmcodec.bundle.PRECISIONS`. The quantizer's graphs compute in float32 in any case: half
            precision flips codes. Inputs and outputs are float32 whatever the precision.
    """
    latents = TensorSpec("latents", "float32", ("batch", codec.config.dimension, "frames"))
    waveform = TensorSpec("waveform", "float32", ("batch", 1, "samples"))
    rvq = "fp32" if precision == "fp16" else precision
    return {
        "encoder": _network("encoder", codec.encoder.model, waveform, latents, precision),
        "quantizer": _quantizer(codec, latents, rvq),
        "dequantizer": _dequantizer(codec, latents, rvq),
        "decoder": _network("decoder", codec.decoder.model, latents, waveform, precision),
        "decoder_recurrent": recurrent_graph(codec, precision),
        "decoder_upsampler": upsampler_graph(codec, precision),
    }


def _network(name: str, layers: nn.Sequential, source: TensorSpec, target: TensorSpec, precision: str) -> Graph:
    builder = GraphBuilder(name, precision)
    lengths = TensorSpec("lengths", "int64", ("batch",))
    signal = add_layers(builder, layers, Signal(builder.cast_in(source.name), lengths.name), name)
    builder.alias(builder.cast_out(signal.tensor), target.name)
    return builder.finish([source, lengths], [target])


def _quantizer(codec: DMCodec, latents: TensorSpec, precision: str) -> Graph:
    """Greedy residual quantization, all levels; callers who want fewer keep the first rows, which are the same."""
    builder = GraphBuilder("quantizer", precision)
    op, config = builder.op, codec.config
    frames = op("Transpose", latents.name, perm=[0, 2, 1])  # [B, T, D]
    residual = op("Reshape", frames, builder.ints(-1, config.dimension))  # [B*T, D]
    # [1, B, T]; the 1 is a slice of the shape, so that no axis has to be guessed when batch or time is 0
    shape = op("Slice", op("Shape", frames), builder.ints(0), builder.ints(2))
    code_shape = op("Concat", builder.ints(1), shape, axis=0)
    levels = []
    for level, codebook in enumerate(_codebooks(codec, precision)):
        entries = add_codebook(builder, level, codebook)
        norms = builder.weight(f"{codebook_name(level)}.squared_norms", _squared_norms(codebook))
        # argmin(|e|^2 - 2 x.e): |x|^2 is the same for all entries; the lowest index wins a tie
        scores = op("Gemm", residual, entries, norms, alpha=-2.0, transB=1)
        indices = op("ArgMin", scores, axis=1, keepdims=0, select_last_index=0)
        levels.append(op("Reshape", indices, code_shape))
        if level < config.n_q - 1:
            residual = op("Sub", residual, op("Gather", entries, indices, axis=0))
    codes = TensorSpec("codes", "int64", (config.n_q, "batch", "frames"))
    builder.alias(op("Concat", *levels, axis=0), codes.name)
    return builder.finish([latents], [codes])


def _dequantizer(codec: DMCodec, latents: TensorSpec, precision: str) -> Graph:
    """Codes of levels first_level, first_level + 1, ... -> the sum of their entries. Codes must be in range."""
    builder = GraphBuilder("dequantizer", precision)
    op, config = builder.op, codec.config
    codes = TensorSpec("codes", "int64", ("n_q", "batch", "frames"))
    first_level = TensorSpec("first_level", "int64", ())
    table = add_codebooks(builder, _codebooks(codec, precision))
    zero, one = (builder.constant(np.array(value, np.int64)) for value in (0, 1))
    levels = op("Range", zero, op("Gather", op("Shape", codes.name), zero, axis=0), one)
    offsets = op("Mul", op("Add", levels, first_level.name), builder.ints(config.codebook_size))
    rows = op("Add", codes.name, op("Reshape", offsets, builder.ints(-1, 1, 1)))
    entries = op("Gather", table, rows, axis=0)  # [n_q, B, T, D]
    total = op("ReduceSum", entries, builder.ints(0), keepdims=0)
    builder.alias(op("Transpose", total, perm=[0, 2, 1]), latents.name)
    return builder.finish([codes, first_level], [latents])


def _codebooks(codec: DMCodec, precision: str) -> NDArray[np.float32]:
    return stored_codebooks(array(codec.quantizer.codebooks()), precision)


def _squared_norms(codebook: NDArray[Any]) -> NDArray[np.float64]:
    squared: NDArray[np.float64] = np.square(codebook.astype(np.float64)).sum(axis=1)
    return squared
