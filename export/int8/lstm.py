"""LSTMs in int8: an LSTM node becomes ONNX Runtime's DynamicQuantizeLSTM, with quantization steps that never change.

DynamicQuantizeLSTM chooses the step of its 8-bit inputs by the largest and the smallest value that it is given, so that
a clip's result would depend on the other clips of its batch, on blocks and on threads. Here each input has two constant
channels, guards, which hold the ends of the range: the step is the same in every call, sums of integers are exact, and
so a clip gets the same result in any company. The guards of the hidden state are two units of the LSTM whose gates hold
them at -1 and 1, the bounds of every hidden state.

The input of the first layer has no such bounds. Each channel is clipped to its range on speech, times a margin, and
takes two channels: its rounded value, and what rounding left, FINER times enlarged, with weights so many times smaller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .nodes import Rewriting
from .quantization import SCALE, rounded_weights

OP = "DynamicQuantizeLSTM"
DOMAIN = "com.microsoft"
GUARDS = 2
INVERSE_BOUNDS = "inverse_bounds"
FINER = 16.0
_STEPS = 127.5  # in the range from 0 to 1; the operator has 255 from -1 to 1
_GATES = 4
_SATURATED = 100.0  # a gate of this pre-activation is 1
_CELL = 20.0  # tanh of it is 1
# Inputs of LSTM, which are the first of DynamicQuantizeLSTM, too.
_X, _W, _R, _B, _LENGTHS, _HIDDEN_STATE, _CELL_STATE = range(7)


def quantize_lstm(rewriting: Rewriting, node: onnx.NodeProto, bounds: NDArray[np.float32] | None) -> None:
    """Replace an LSTM node; its inputs and outputs keep their names and shapes.

    Args:
        rewriting: of the graph.
        node: the LSTM.
        bounds: largest absolute value of each channel of the input; None for hidden states of another LSTM.
    """
    inputs = [*node.input, *[""] * (_CELL_STATE + 1 - len(node.input))]
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    directions, _, hidden = rewriting.values(inputs[_R]).shape
    x = _joined_with_ends(rewriting, _split(rewriting, inputs, bounds) if bounds is not None else inputs[_X])
    w, w_details = _stored(rewriting, inputs[_W], bounds)
    r, r_details = _stored(rewriting, inputs[_R], None)
    states = [
        _guarded_state(rewriting, inputs[index], inputs[_X], (directions, hidden), end)
        for index, end in ((_HIDDEN_STATE, 1.0), (_CELL_STATE, _CELL))
    ]
    guarded = rewriting.add(
        OP,
        [x, w, r, _guarded_bias(rewriting, inputs[_B]), inputs[_LENGTHS], *states, "", *w_details, *r_details],
        outputs=[name and f"{name}_guarded" for name in node.output],
        domain=DOMAIN,
        **{**attributes, "hidden_size": hidden + GUARDS},
    )
    ends = [rewriting.ints(value) for value in (0, hidden, -1)]
    for name, output in zip(node.output, guarded, strict=True):
        if name:
            rewriting.add("Slice", [output, *ends], outputs=[name])


def _stored(rewriting: Rewriting, name: str, bounds: NDArray[np.float32] | None) -> tuple[str, list[str]]:
    """Store W or R [directions, inputs, 4 (H + 2)]; return what the operator takes, its scales and its zero points.

    The rows of the guards and of the finer half are made of the stored ones when a session folds constants.
    """
    weight = rewriting.values(name).astype(np.float32)
    if bounds is not None:
        weight = weight * bounds
    integers, scales = rounded_weights(_with_guard_units(weight))
    stored = rewriting.store(name, integers.transpose(0, 2, 1))
    guards = rewriting.constant(np.zeros((len(integers), GUARDS, integers.shape[1]), np.int8))
    parts = [stored]
    if bounds is not None:
        floats = rewriting.op("Cast", stored, to=onnx.TensorProto.FLOAT)
        smaller = rewriting.op("Round", rewriting.op("Mul", floats, rewriting.scalar(1 / FINER)))
        parts.append(rewriting.op("Cast", smaller, to=onnx.TensorProto.INT8))
    zeros = rewriting.constant(np.zeros(scales.shape, np.int8))
    return rewriting.op("Concat", *parts, guards, axis=1), [rewriting.store(f"{name}.{SCALE}", scales), zeros]


def _with_guard_units(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pad a weight [directions, 4 H, inputs] to [directions, 4 (H + 2), inputs], with zeros for the guards."""
    directions, rows, inputs = weight.shape
    gates = weight.reshape(directions, _GATES, rows // _GATES, inputs)
    padded = np.pad(gates, ((0, 0), (0, 0), (0, GUARDS), (0, 0)))
    return padded.reshape(directions, rows + _GATES * GUARDS, inputs)


def _guarded_bias(rewriting: Rewriting, name: str) -> str:
    """Store the bias [directions, 8 H] with gates that keep the guards' cells: input 0, output and forget 1."""
    bias = rewriting.values(name).astype(np.float32)
    guards = np.zeros((len(bias), 2 * _GATES, GUARDS), np.float32)
    guards[:, :3] = np.array([-_SATURATED, _SATURATED, _SATURATED], np.float32)[:, None]
    gates = np.concatenate([bias.reshape(len(bias), 2 * _GATES, -1), guards], axis=2)
    return rewriting.store(name, gates.reshape(len(bias), -1))


def _split(rewriting: Rewriting, inputs: list[str], bounds: NDArray[np.float32]) -> str:
    """Return x [T, B, C] in the range of its bounds, as [T, B, 2 C]: rounded, and the enlarged rest."""
    op, scalar = rewriting.op, rewriting.scalar
    inverse = rewriting.store(f"{inputs[_W]}.{INVERSE_BOUNDS}", (1 / bounds).astype(np.float32))
    largest = (_STEPS - 0.5) / _STEPS
    scaled = op("Clip", op("Mul", inputs[_X], inverse), scalar(-largest), scalar(largest))
    rounded = op("Mul", op("Round", op("Mul", scaled, scalar(_STEPS))), scalar(1 / _STEPS))
    rest = op("Mul", op("Sub", scaled, rounded), scalar(FINER))
    return op("Concat", rounded, rest, axis=2)


def _joined_with_ends(rewriting: Rewriting, x: str) -> str:
    """Return x [T, B, C] with two channels more that hold -1 and 1."""
    op = rewriting.op
    shape = op("Slice", op("Shape", x), rewriting.ints(0), rewriting.ints(2))
    shape = op("Concat", shape, rewriting.ints(GUARDS), axis=0)
    ends = rewriting.constant(np.array([[[-1, 1]]], np.float32))
    return op("Concat", x, op("Expand", ends, shape), axis=2)


def _guarded_state(rewriting: Rewriting, state: str, x: str, shape: tuple[int, int], end: float) -> str:
    """Return a state [directions, B, H], by default zeros, with the guards' values -end and end after it."""
    op, (directions, hidden) = rewriting.op, shape
    batch = op("Gather", op("Shape", x), rewriting.ints(1), axis=0)

    def expanded(values: NDArray[Any]) -> str:
        sizes = op("Concat", rewriting.ints(directions), batch, rewriting.ints(values.shape[2]), axis=0)
        return op("Expand", rewriting.constant(values), sizes)

    ends = np.tile(np.array([-end, end], np.float32), (directions, 1, 1))
    if state:
        return op("Concat", state, expanded(ends), axis=2)
    return expanded(np.concatenate([np.zeros((directions, 1, hidden), np.float32), ends], axis=2))
