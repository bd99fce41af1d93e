"""Finds the layers that can compute in int8, with the ranges of their values on speech."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from .conv import Range
from .plan import CONV, LSTM, ROUNDING, Layer
from .sessions import Session

_FEWEST_CHANNELS = 8  # of a convolution that int8 makes faster
# The range of a value is what was seen, times this. An LSTM's input is rounded finer, so that it can have more room.
MARGIN = {CONV: 1.1, LSTM: 2.0}
_TIME = {CONV: (0, 2), LSTM: (0, 1)}  # axes of batch and time


def find_layers(model: onnx.ModelProto, inputs: Iterable[NDArray[np.float32]], seconds: float) -> tuple[Layer, ...]:
    """Find the layers of a graph in its plain form.

    Args:
        model: with one input.
        inputs: values of the input for each clip.
        seconds: length of all clips together.

    Raises:
        ValueError: there are no clips.
    """
    weights = {item.name: tuple(item.dims) for item in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in (CONV, LSTM) and _is_wide(node, weights)]
    ranges, steps = _measured(model, nodes, inputs)
    layers = []
    for node in nodes:
        margin = MARGIN[node.op_type]
        source = ranges[node.input[0]].widened(margin)
        is_bounded = node.op_type == LSTM and _follows_lstm(model, node)
        result = ranges[node.output[0]].widened(margin) if node.op_type == CONV else None
        layers.append(
            Layer(
                node.input[1],
                node.op_type,
                None if is_bounded else source,
                result,
                _gain(node, weights, steps) / seconds,
            )
        )
    return tuple(layers)


def channel_means(model: onnx.ModelProto, inputs: Iterable[NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the mean of each channel [C] of the inputs of a graph's convolutions, by the names of their weights.

    Args:
        model: with one input.
        inputs: values of the input for each clip; clips count alike.
    """
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    nodes = [node for node in model.graph.node if node.op_type == CONV]
    names = {node.input[1]: f"{node.input[1]}:mean" for node in nodes}
    probed.graph.node.extend(
        helper.make_node("ReduceMean", [node.input[0]], [names[node.input[1]]], axes=[0, 2], keepdims=0)
        for node in nodes
    )
    session = Session(probed, list(names.values()))
    means = [session.all_outputs(**{model.graph.input[0].name: clip}) for clip in inputs]
    return {weight: np.mean([item[name] for item in means], axis=0) for weight, name in names.items()}


def _is_wide(node: onnx.NodeProto, weights: Mapping[str, tuple[int, ...]]) -> bool:
    shape = weights.get(node.input[1])
    return shape is not None and (node.op_type == LSTM or min(shape[:2]) >= _FEWEST_CHANNELS)


def _gain(node: onnx.NodeProto, weights: Mapping[str, tuple[int, ...]], steps: Mapping[str, float]) -> float:
    """Return `Layer.gain` for all clips together."""
    output_steps = steps[node.output[0]]
    if node.op_type == LSTM:
        return sum(math.prod(weights[name]) for name in node.input[1:3]) * output_steps
    shape = weights[node.input[1]]
    return math.prod(shape) * output_steps - ROUNDING * (shape[0] * output_steps + shape[1] * steps[node.input[0]])


def _follows_lstm(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Return whether the input is an LSTM's output, whatever its layout."""
    sources = {output: item for item in model.graph.node for output in item.output}
    source = sources.get(node.input[0])
    while source is not None and source.op_type in ("Reshape", "Transpose", "Squeeze"):
        source = sources.get(source.input[0])
    return source is not None and source.op_type == LSTM


def _measured(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], inputs: Iterable[NDArray[np.float32]]
) -> tuple[dict[str, Range], dict[str, float]]:
    """Return ranges of the channels of the nodes' inputs and outputs, and numbers of steps, of all clips together."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    names = {name: _TIME[node.op_type] for node in nodes for name in (node.input[0], node.output[0])}
    is_lstm = {node.output[0] for node in nodes if node.op_type == LSTM}
    probes = []
    for name, axes in names.items():
        probes.append(helper.make_node("Shape", [name], [f"{name}:shape"]))
        if name not in is_lstm:  # its output has an axis more, and its range is not needed
            probes += [
                helper.make_node(op, [name], [f"{name}:{op}"], axes=list(axes), keepdims=0)
                for op in ("ReduceMin", "ReduceMax")
            ]
    probed.graph.node.extend(probes)
    session = Session(probed, [output for probe in probes for output in probe.output])
    ranges: dict[str, Range] = {}
    steps: dict[str, float] = {}
    for clip in inputs:
        outputs = session.all_outputs(**{model.graph.input[0].name: clip})
        for name in names:
            shape = outputs[f"{name}:shape"]
            steps[name] = steps.get(name, 0.0) + float(shape[0] if name in is_lstm else shape[-1])
            if name not in is_lstm:
                seen = Range(*(outputs[f"{name}:{op}"] for op in ("ReduceMin", "ReduceMax")))
                ranges[name] = _joined(ranges.get(name), seen)
    return ranges, steps


def _joined(first: Range | None, second: Range) -> Range:
    """Return what holds both ranges, and 0."""
    low, high = (np.float32(0), np.float32(0)) if first is None else (first.low, first.high)
    return Range(np.minimum(np.minimum(second.low, 0), low), np.maximum(np.maximum(second.high, 0), high))
