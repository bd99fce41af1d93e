"""Convolutions in int8: QLinearConv, between a rounding of its input and of its output with a step for each channel.

QLinearConv has one step for all channels of its input, and one for its output. The weights take over what the channels
differ by: those of an input channel are multiplied by its step, and those of an output channel divided by its step.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from numpy.typing import NDArray

from .nodes import Rewriting
from .quantization import SCALE, rounded_weights

OP = "QLinearConv"
STEPS = "input_steps"
OUTPUT_STEPS = "output_steps"
_LEVELS, _MIDDLE = 255, 128
_ZERO_POINTS = (8, 16, 32, 64, 96, _MIDDLE)
_SMALLEST_STEP = 1e-9


@dataclasses.dataclass(frozen=True)
class Range:
    """The lowest and the highest value of each channel, [C] each; 0 is between them."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def widened(self, factor: float) -> Range:
        """Return the range with its ends so many times as far from 0."""
        return Range(self.low * np.float32(factor), self.high * np.float32(factor))


def quantize_conv(
    rewriting: Rewriting,
    node: onnx.NodeProto,
    source: Range,
    result: Range,
    mean: NDArray[np.float32] | None = None,
) -> None:
    """Replace a convolution with a bias; its input and output keep their names and shapes.

    Args:
        rewriting: of the graph.
        node: the convolution.
        source: range of its input; values outside are clipped.
        result: range of its output; likewise.
        mean: of each channel of the input; the bias takes over what the rounding of the weights does to it.
    """
    x, weight_name, bias_name = node.input
    weight, bias = (rewriting.values(name).astype(np.float64) for name in (weight_name, bias_name))
    steps, zero = _input_steps(source)
    integers, scales = _rounded(weight * steps[:, None])
    if mean is not None:
        bias += (weight - integers * (scales[:, None] / steps)[:, :, None]).sum(axis=2) @ mean
    output_steps = np.maximum((result.high - result.low).astype(np.float64) / _LEVELS, _SMALLEST_STEP)
    # An output channel has a zero point of its own, QLinearConv one for all: the bias makes up for the difference.
    zeros = np.clip(np.rint(-result.low / output_steps), 0, _LEVELS)
    moved = np.rint((bias + output_steps * (zeros - _MIDDLE)) / scales)
    limits = np.iinfo(np.int32)
    name, constant, store = weight_name.rpartition(".")[0], rewriting.constant, rewriting.store
    one = rewriting.scalar(1)
    quantized = rewriting.op(
        "QuantizeLinear",
        x,
        store(f"{name}.{STEPS}", steps.astype(np.float32)),
        constant(np.full(len(steps), zero, np.uint8)),
        axis=1,
    )
    output = rewriting.op(
        OP,
        quantized,
        one,
        constant(np.array(zero, np.uint8)),
        store(weight_name, integers),
        store(f"{weight_name}.{SCALE}", (scales / output_steps).astype(np.float32)),
        constant(np.zeros(len(scales), np.int8)),
        one,
        constant(np.array(_MIDDLE, np.uint8)),
        store(bias_name, np.clip(moved, limits.min, limits.max).astype(np.int32)),
        **{item.name: onnx.helper.get_attribute_value(item) for item in node.attribute},
    )
    rewriting.add(
        "DequantizeLinear",
        [
            output,
            store(f"{name}.{OUTPUT_STEPS}", output_steps.astype(np.float32)),
            constant(zeros.astype(np.uint8)),
        ],
        outputs=list(node.output),
        axis=1,
    )


def _rounded(weight: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Round a weight [outputs, inputs, taps]; neighbours are the inputs of a tap, or the taps of an input."""
    outputs, inputs, taps = weight.shape
    orders = (weight, weight.transpose(0, 2, 1))
    rows = np.concatenate([order.reshape(outputs, -1) for order in orders], axis=1).astype(np.float32)
    integers, scales = rounded_weights(rows)
    return integers[:, : inputs * taps].reshape(weight.shape), scales.astype(np.float64)


def _input_steps(source: Range) -> tuple[NDArray[np.float64], int]:
    """Return the step of each channel, and the zero point of all of them, with the least sum of squared steps."""

    def steps(zero: int) -> NDArray[np.float64]:
        ends = np.maximum(source.high / (_LEVELS - zero), -source.low / zero)
        return np.maximum(ends.astype(np.float64), _SMALLEST_STEP)

    best = min(_ZERO_POINTS, key=lambda zero: float(np.square(steps(zero)).sum()))
    return steps(best), best
