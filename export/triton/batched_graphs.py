"""Graphs in a form that Triton can batch: with the batch axis first in every tensor.

The bundle's quantizer returns codes [n_q, B, T], its dequantizer takes one `first_level` for the whole batch, and the
states of its streaming decoder are [layers, B, channels]. Triton joins requests on the first axis of every tensor. The
other graphs already have that form.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dmcodec.bundle import TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.export.graph_builder import GraphBuilder
from dmcodec.export.weights import add_codebooks, read_codebooks, read_graph

_LEVELS_FIRST = "codes_levels_first"


def batched_quantizer(path: Path, config: CodecConfig) -> onnx.ModelProto:
    """Return the quantizer with codes [B, n_q, T] and, from `lengths` [B] in samples, the items' `frames` [B]."""
    model = read_graph(path)
    graph = model.graph
    for node in graph.node:
        node.output[:] = [_LEVELS_FIRST if name == "codes" else name for name in node.output]
    names = ("lengths", "hop_less_one", "hop", "padded_lengths", "frames")
    graph.initializer.append(numpy_helper.from_array(np.array([config.hop_length - 1], np.int64), names[1]))
    graph.initializer.append(numpy_helper.from_array(np.array([config.hop_length], np.int64), names[2]))
    graph.node.extend(
        [
            helper.make_node("Transpose", [_LEVELS_FIRST], ["codes"], name="batch_first", perm=[1, 0, 2]),
            helper.make_node("Add", ["lengths", "hop_less_one"], ["padded_lengths"], name="padded_lengths"),
            helper.make_node("Div", ["padded_lengths", "hop"], ["frames"], name="frames"),
        ]
    )
    int64 = onnx.TensorProto.INT64
    graph.input.append(helper.make_tensor_value_info("lengths", int64, ["batch"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("codes", int64, ["batch", config.n_q, "frames"]))
    graph.output.append(helper.make_tensor_value_info("frames", int64, ["batch"]))
    onnx.checker.check_model(model, full_check=True)
    return model


def batched_recurrent(path: Path) -> onnx.ModelProto:
    """Return the streaming decoder's LSTM with its states as [B, layers, channels]."""
    model = read_graph(path)
    graph = model.graph
    first, last = [], []
    for name in ("hidden", "cell"):
        inner, new = f"{name}_layers_first", f"new_{name}"
        for node in graph.node:
            node.input[:] = [inner if each == name else each for each in node.input]
            node.output[:] = [f"{new}_layers_first" if each == new else each for each in node.output]
        first.append(helper.make_node("Transpose", [name], [inner], name=f"{name}_turned", perm=[1, 0, 2]))
        last.append(helper.make_node("Transpose", [f"{new}_layers_first"], [new], name=f"{new}_turned", perm=[1, 0, 2]))
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        if value.name.removeprefix("new_") in ("hidden", "cell"):
            dims = value.type.tensor_type.shape.dim
            layers = dims[0].dim_value
            dims[0].dim_param, dims[1].dim_value = "batch", layers
    onnx.checker.check_model(model, full_check=True)
    return model


def batched_dequantizer(quantizer: Path, config: CodecConfig) -> onnx.ModelProto:
    """Return the dequantizer for codes [B, n_q, T] and a `first_level` [B] for each item.

    Its codebooks are read from the bundle's quantizer, which stores them by level in every format version. Codes and
    levels out of range are clipped, so that a wrong request does not fail the others of its batch.
    """
    builder = GraphBuilder("dequantizer")
    op, ints = builder.op, builder.ints
    codes = TensorSpec("codes", "int64", ("batch", "n_q", "frames"))
    first_level = TensorSpec("first_level", "int64", ("batch",))
    latents = TensorSpec("latents", "float32", ("batch", config.dimension, "frames"))
    table = add_codebooks(builder, read_codebooks(quantizer, config))
    zero, one, last_level, last_code = (
        builder.constant(np.array(value, np.int64)) for value in (0, 1, config.n_q - 1, config.codebook_size - 1)
    )
    rows = op("Range", zero, op("Gather", op("Shape", codes.name), one, axis=0), one)  # [n_q]
    levels = op("Clip", op("Add", op("Unsqueeze", first_level.name, ints(1)), rows), zero, last_level)  # [B, n_q]
    offsets = op("Unsqueeze", op("Mul", levels, ints(config.codebook_size)), ints(2))
    indices = op("Add", op("Clip", codes.name, zero, last_code), offsets)
    total = op("ReduceSum", op("Gather", table, indices, axis=0), ints(1), keepdims=0)  # [B, T, D]
    builder.alias(op("Transpose", total, perm=[0, 2, 1]), latents.name)
    return builder.finish([codes, first_level], [latents]).model
