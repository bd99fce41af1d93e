"""An LSTM as one `Scan` over all its directions, the form that GPUs run with the fewest kernels.

The products with the input are outside the loop, one matrix product for each direction. A step of the loop is one
batched product for all directions, and the gates. TensorRT for RTX 1.7 makes two kernels of a step; of an LSTM of two
directions with `sequence_lens` it makes 19. The arithmetic is float32 whatever the LSTM's type: gates, and the cell
state, which adds up over all steps.

The backward direction reads each item in reverse from its own end, and its output is reversed again. Both directions
go on beyond an item's end over its padding, which does not affect the item.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from dmcodec.errors import ExportError

from .graph_writer import GraphWriter, attributes

_DIRECTIONS = {b"forward": (False,), b"reverse": (True,), b"bidirectional": (False, True)}
_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Inputs of ONNX's LSTM.
_X, _W, _R, _B, _LENGTHS, _HIDDEN, _CELL, _NUM_INPUTS = 0, 1, 2, 3, 4, 5, 6, 7
_FIRST_INT64 = -(2**62)


@dataclasses.dataclass(frozen=True)
class _Lstm:
    """An LSTM node.

    Attributes:
        name: of the node.
        inputs: names of X, W, R, B, sequence_lens, initial_h and initial_c; "" where there is none.
        outputs: names of Y, Y_h and Y_c; "" where there is none.
        size: hidden size H.
        backward: of each direction, whether it runs from the end.
        weights: W [directions, 4H, I], R [directions, 4H, H] and B [directions, 8H], float32.
        half: whether the LSTM is in half precision.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    size: int
    backward: tuple[bool, ...]
    weights: tuple[NDArray[np.float32], ...]
    half: bool


def scan_lstm(writer: GraphWriter, node: NodeProto) -> None:
    """Replace an LSTM by a Scan that computes the same.

    Raises:
        ExportError: it has an attribute, an input or an output that this form does not cover.
    """
    lstm = _parsed(writer, node)
    op, constant = writer.op, writer.constant
    steps = op("Cast", lstm.inputs[_X], to=_FLOAT) if lstm.half else lstm.inputs[_X]  # [T, B, I]
    turn = _Turn(writer, steps, lstm.inputs[_LENGTHS]) if any(lstm.backward) else None
    projections = []
    for index, backward in enumerate(lstm.backward):
        w, bias = lstm.weights[0][index], lstm.weights[2][index]
        weight = writer.weight(f"{lstm.name}.input_{index}", w.T)
        biases = writer.weight(f"{lstm.name}.bias_{index}", bias[: 4 * lstm.size] + bias[4 * lstm.size :])
        source = turn(steps) if turn and backward else steps
        projections.append(op("Unsqueeze", op("Add", op("MatMul", source, weight), biases), constant([1])))
    projected = op("Concat", *projections, axis=1) if len(projections) > 1 else projections[0]  # [T, directions, B, 4H]
    states = [_initial(writer, lstm, steps, index) for index in (_HIDDEN, _CELL)]
    *last, outputs = _scan(writer, lstm, states, projected)
    _deliver(writer, lstm, 0, _turned_back(writer, lstm, outputs, turn))
    for position, state in enumerate(last, 1):
        _deliver(writer, lstm, position, state)


def _parsed(writer: GraphWriter, node: NodeProto) -> _Lstm:
    values = attributes(node)
    inputs = (*node.input, *[""] * (_NUM_INPUTS - len(node.input)))
    outputs = (*node.output, *[""] * (3 - len(node.output)))
    weights = [writer.values(name) for name in inputs[_W : _B + 1]]
    unknown = values.keys() - {"hidden_size", "direction"}
    ends = inputs[_LENGTHS] and any(outputs[1:])  # the state at an item's own end is not the loop's last
    direction = values.get("direction", b"forward")
    found = [item for item in weights if item is not None]
    if unknown or ends or len(inputs) > _NUM_INPUTS or len(found) != len(weights) or direction not in _DIRECTIONS:
        raise ExportError(f"{node.name}: no TensorRT form for this LSTM")
    floats = tuple(item.astype(np.float32) for item in found)
    half = found[0].dtype == np.float16
    return _Lstm(node.name, inputs, outputs, values["hidden_size"], _DIRECTIONS[direction], floats, half)


def _initial(writer: GraphWriter, lstm: _Lstm, steps: str, index: int) -> str:
    """Return the initial state [directions, B, H]: that of the node, or zeros."""
    op, constant = writer.op, writer.constant
    if name := lstm.inputs[index]:
        return op("Cast", name, to=_FLOAT) if lstm.half else name
    batch = op("Slice", op("Shape", steps), constant([1]), constant([2]), constant([0]))
    shape = op("Concat", constant([len(lstm.backward)]), batch, constant([lstm.size]), axis=0)
    return op("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.float32)))


def _scan(writer: GraphWriter, lstm: _Lstm, states: list[str], projected: str) -> list[str]:
    """Add the Scan; return the last hidden and cell state, and the outputs [T, directions, B, H]."""
    names = [f"{lstm.name}_{part}" for part in ("last_hidden", "last_cell", "outputs")]
    node = helper.make_node(
        "Scan", [*states, projected], names, name=f"{lstm.name}_scan", body=_body(lstm), num_scan_inputs=1
    )
    writer.add(node)
    return names


def _body(lstm: _Lstm) -> GraphProto:
    """Return a step: hidden and cell state, and the projected input of a frame -> new states, and the output."""

    def named(part: str) -> str:
        return f"{lstm.name}_step_{part}"

    def node(op_type: str, inputs: str, outputs: str, **more: Any) -> NodeProto:
        return helper.make_node(
            op_type, [named(x) for x in inputs.split()], [named(x) for x in outputs.split()], **more
        )

    def tensor(part: str, size: int) -> ValueInfoProto:
        return helper.make_tensor_value_info(named(part), _FLOAT, [len(lstm.backward), None, size])

    recurrent = np.ascontiguousarray(lstm.weights[1].transpose(0, 2, 1))  # [directions, H, 4H]
    return helper.make_graph(
        [
            node("MatMul", "hidden weight", "product"),
            node("Add", "projected product", "sums"),
            node("Split", "sums sizes", "sum_i sum_o sum_f sum_c", axis=2),
            node("Sigmoid", "sum_i", "i"),
            node("Sigmoid", "sum_o", "o"),
            node("Sigmoid", "sum_f", "f"),
            node("Tanh", "sum_c", "c"),
            node("Mul", "f cell", "kept"),
            node("Mul", "i c", "added"),
            node("Add", "kept added", "new_cell"),
            node("Tanh", "new_cell", "squashed"),
            node("Mul", "o squashed", "new_hidden"),
            node("Identity", "new_hidden", "output"),
        ],
        f"{lstm.name}_step",
        [tensor("hidden", lstm.size), tensor("cell", lstm.size), tensor("projected", 4 * lstm.size)],
        [tensor(part, lstm.size) for part in ("new_hidden", "new_cell", "output")],
        [
            numpy_helper.from_array(recurrent, named("weight")),
            numpy_helper.from_array(np.full(4, lstm.size, np.int64), named("sizes")),
        ],
    )


def _turned_back(writer: GraphWriter, lstm: _Lstm, outputs: str, turn: _Turn | None) -> str:
    """Return the outputs [T, directions, B, H] with the frames of the backward direction in the items' order."""
    if turn is None:
        return outputs
    op, constant = writer.op, writer.constant
    parts = []
    for index, backward in enumerate(lstm.backward):
        part = outputs
        if len(lstm.backward) > 1:
            part = op("Slice", outputs, constant([index]), constant([index + 1]), constant([1]))
        if backward:
            part = op("Unsqueeze", turn(op("Squeeze", part, constant([1]))), constant([1]))
        parts.append(part)
    return op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]


def _deliver(writer: GraphWriter, lstm: _Lstm, position: int, tensor: str) -> None:
    """Name a result as the node's output, and cast it to the node's type."""
    if not lstm.outputs[position]:
        return
    if lstm.half:
        writer.op("Cast", tensor, to=_HALF, output=lstm.outputs[position])
    else:
        writer.op("Identity", tensor, output=lstm.outputs[position])


class _Turn:
    """Reverses the steps [T, B, ...] of each item from its own end; its padding stays where it is."""

    def __init__(self, writer: GraphWriter, steps: str, lengths: str) -> None:
        self._writer = writer
        self._rows = _reversed_rows(writer, steps, lengths) if lengths else None

    def __call__(self, steps: str) -> str:
        """Add the reversal of steps; return the name of the result."""
        op, constant = self._writer.op, self._writer.constant
        if self._rows is None:  # all items are T long
            return op("Slice", steps, *(constant([value]) for value in (-1, _FIRST_INT64, 0, -1)))
        channels = op("Slice", op("Shape", steps), *(constant([value]) for value in (2, 3, 0)))
        flat = op("Reshape", steps, op("Concat", constant([-1]), channels, axis=0))
        return op("Gather", flat, self._rows, axis=0)


def _reversed_rows(writer: GraphWriter, steps: str, lengths: str) -> str:
    """Return indices [T, B] into rows [T*B, ...] that reverse each item's steps; its padding stays where it is."""
    op, constant = writer.op, writer.constant
    shape = op("Shape", steps)
    time, batch = (op("Gather", shape, constant(axis), axis=0) for axis in (0, 1))
    zero, one = constant(0), constant(1)
    position = op("Unsqueeze", op("Range", zero, time, one), constant([1]))  # [T, 1]
    last = op("Sub", op("Unsqueeze", op("Cast", lengths, to=TensorProto.INT64), constant([0])), one)  # [1, B]
    mirrored = op("Sub", last, position)  # [T, B]
    reversed_position = op("Where", op("Less", mirrored, zero), position, mirrored)
    return op("Add", op("Mul", reversed_position, batch), op("Range", zero, batch, one))
