"""Rewrites a graph for TensorRT: the same function, in a form that every flavour parses, builds and runs well.

The rules were found with TensorRT-RTX 1.7, by parsing and building each graph:

1. `Elu` after an `LSTM` fails in the builder's shape inference ("There are 2 inputs. Expected 1"). It becomes `Selu`
   with gamma = 1 and the same alpha, which is the same function.
2. An `LSTM` becomes a `Scan` in float32, `dmcodec.export.tensorrt.scan_lstm`: TensorRT's own form takes up to 19
   kernels a frame, and masks a half-precision `LSTM` with a float32 zero, which does not parse.
3. `Slice` without `axes` does not parse where it slices only some of the axes. The axes are written out.

TensorRT gets the whole graph as one piece of memory: weights that the bundle stores in another file are put into the
graph, and weights that it stores in half precision before a `Cast` (LSTMs of precision fp16, and precision
fp16-weights) are cast.

The rewritten graph is valid ONNX with the same inputs and outputs. The tests compare it with the bundle's graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from dmcodec.errors import ExportError
from dmcodec.export.weights import read_graph

from .graph_writer import GraphWriter, attributes
from .scan_lstm import scan_lstm

# Part of an engine's key, so that new rules cause a new build.
RULES_VERSION = 3


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
    writer = GraphWriter(model.graph)
    for node in list(model.graph.node):
        if node.op_type == "Elu":
            writer.add(_selu(node))
        elif node.op_type == "LSTM":
            scan_lstm(writer, node)
        elif node.op_type == "Slice" and (len(node.input) < 4 or not node.input[3]):
            writer.add(_named_axes(writer, node))
        else:
            writer.add(node)
    writer.finish()


def _fold_casts(graph: onnx.GraphProto) -> None:
    """Replace casts of initializers by initializers of the target type."""
    stored = {item.name: item for item in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]:
        dtype = helper.tensor_dtype_to_np_dtype(attributes(node)["to"])
        values = numpy_helper.to_array(stored[node.input[0]]).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)


def _selu(node: NodeProto) -> NodeProto:
    alpha = attributes(node).get("alpha", 1.0)
    return helper.make_node("Selu", node.input, node.output, name=node.name, alpha=alpha, gamma=1.0)


def _named_axes(writer: GraphWriter, node: NodeProto) -> NodeProto:
    starts = writer.initializers.get(node.input[1])
    if starts is None:
        raise ExportError(f"{node.name}: no TensorRT form for a Slice whose starts aren't constant")
    count = int(np.prod(starts.dims))
    return helper.make_node("Slice", [*node.input[:3], writer.constant(range(count))], node.output, name=node.name)
