"""Rewrites a graph for TensorRT: the same function, in a form that every flavour parses and builds.

The rules were found with TensorRT-RTX 1.7, by parsing and building each graph:

1. `Elu` after an `LSTM` fails in the builder's shape inference ("There are 2 inputs. Expected 1"). It becomes `Selu`
   with gamma = 1 and the same alpha, which is the same function.
2. A half-precision `LSTM` with `sequence_lens` does not parse: the parser masks it with a float32 zero. A bidirectional
   one becomes two forward ones. The input of the second is each item in reverse, from its own end, and its output is
   reversed again.
3. `Slice` without `axes` does not parse where it slices only some of the axes. The axes are written out.

TensorRT gets the whole graph as one piece of memory: weights that the bundle stores in another file are put into the
graph, and weights that it stores in half precision before a `Cast` (precision fp16-weights) are cast.

The rewritten graph is valid ONNX with the same inputs and outputs. The tests compare it with the bundle's graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from dmcodec.errors import ExportError
from dmcodec.export.weights import read_graph

# Part of an engine's key, so that new rules cause a new build.
RULES_VERSION = 2


def rewritten(path: Path) -> bytes:
    """Read the ONNX graph at `path`, rewrite it for TensorRT, and return it serialised.

    Raises:
        ExportError: the file is not an ONNX graph, or the rules don't cover it.
    """
    model = read_graph(path)
    rewrite(model)
    return bytes(model.SerializeToString())


def rewrite(model: onnx.ModelProto) -> None:
    """Apply the rules to `model` in place."""
    _fold_casts(model.graph)
    half = {item.name for item in model.graph.initializer if item.data_type == TensorProto.FLOAT16}
    writer = _Writer(model.graph)
    for node in list(model.graph.node):
        if node.op_type == "Elu":
            writer.add(_selu(node))
        elif node.op_type == "LSTM" and len(node.input) > 4 and node.input[4] and node.input[1] in half:
            _split_lstm(writer, node)
        elif node.op_type == "Slice" and (len(node.input) < 4 or not node.input[3]):
            writer.add(_named_axes(writer, node))
        else:
            writer.add(node)
    writer.finish()


def _fold_casts(graph: onnx.GraphProto) -> None:
    """Replace casts of initializers by initializers of the target type."""
    stored = {item.name: item for item in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]:
        dtype = helper.tensor_dtype_to_np_dtype(_attributes(node)["to"])
        values = numpy_helper.to_array(stored[node.input[0]]).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)


class _Writer:
    """Collects the nodes and initializers of the new graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._nodes: list[NodeProto] = []
        self.initializers = {item.name: item for item in graph.initializer}
        self._count = 0

    def add(self, node: NodeProto) -> None:
        self._nodes.append(node)

    def op(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        self._count += 1
        output = output or f"trt_{op_type}_{self._count}"
        self.add(helper.make_node(op_type, list(inputs), [output], name=f"{output}_trt", **attributes))
        return output

    def constant(self, values: Any) -> str:
        self._count += 1
        return self.weight(f"trt_constant_{self._count}", np.array(values, np.int64))

    def weight(self, name: str, values: NDArray[Any]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def finish(self) -> None:
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [item for name, item in self.initializers.items() if name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        # These shapes belong to the old nodes; the parser infers shapes by itself.
        del self._graph.value_info[:]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _selu(node: NodeProto) -> NodeProto:
    alpha = _attributes(node).get("alpha", 1.0)
    return helper.make_node("Selu", node.input, node.output, name=node.name, alpha=alpha, gamma=1.0)


def _named_axes(writer: _Writer, node: NodeProto) -> NodeProto:
    starts = writer.initializers.get(node.input[1])
    if starts is None:
        raise ExportError(f"{node.name}: no TensorRT form for a Slice whose starts aren't constant")
    count = int(np.prod(starts.dims))
    return helper.make_node("Slice", [*node.input[:3], writer.constant(range(count))], node.output, name=node.name)


def _split_lstm(writer: _Writer, node: NodeProto) -> None:
    """Replace a bidirectional LSTM with `sequence_lens` by two forward ones without, joined to the same Y [T, 2, B, H].

    Both continue beyond an item's end over its padding, which does not affect the item.
    """
    attributes = _attributes(node)
    if attributes.get("direction") != b"bidirectional" or len(node.output) > 1 or len(node.input) > 5:
        raise ExportError(f"{node.name}: no TensorRT form for this LSTM")
    op, hidden_size = writer.op, attributes["hidden_size"]
    steps, lengths = node.input[0], node.input[4]
    rows = _reversed_rows(writer, steps, lengths)
    directions = []
    for index, source in enumerate((steps, _gather_steps(writer, steps, rows))):
        weights = list(_direction(writer, node, index))
        directions.append(op("LSTM", source, *weights, hidden_size=hidden_size, direction="forward"))  # [T, 1, B, H]
    backward = op("Squeeze", directions[1], writer.constant([1]))
    backward = op("Unsqueeze", _gather_steps(writer, backward, rows), writer.constant([1]))
    op("Concat", directions[0], backward, axis=1, output=node.output[0])


def _direction(writer: _Writer, node: NodeProto, index: int) -> Iterator[str]:
    """Yield the names of weights W, R and B of one direction."""
    for name in node.input[1:4]:
        values = numpy_helper.to_array(writer.initializers[name])
        yield writer.weight(f"{name}.direction_{index}", values[index : index + 1])


def _reversed_rows(writer: _Writer, steps: str, lengths: str) -> str:
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


def _gather_steps(writer: _Writer, steps: str, rows: str) -> str:
    """Reorder the steps of [T, B, C] by indices [T, B] into its rows [T*B, C]."""
    channels = writer.op("Slice", writer.op("Shape", steps), *(writer.constant([v]) for v in (2, 3, 0)))
    flat = writer.op("Reshape", steps, writer.op("Concat", writer.constant([-1]), channels, axis=0))
    return writer.op("Gather", flat, rows, axis=0)
