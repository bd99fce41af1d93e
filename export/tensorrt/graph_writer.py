"""Collects the nodes and the weights of a graph that is being rewritten."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper


class GraphWriter:
    """The new nodes of a graph, which replace the old ones at `finish`."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._nodes: list[NodeProto] = []
        self.initializers = {item.name: item for item in graph.initializer}
        self._count = 0

    def add(self, node: NodeProto) -> None:
        """Add a node."""
        self._nodes.append(node)

    def op(self, op_type: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node with one output; return the output's name, a new one unless it is given."""
        self._count += 1
        output = output or f"trt_{op_type}_{self._count}"
        self.add(helper.make_node(op_type, list(inputs), [output], name=f"{output}_trt", **attributes))
        return output

    def constant(self, values: Any) -> str:
        """Add integers, a scalar or a list, as int64; return their name."""
        self._count += 1
        return self.weight(f"trt_constant_{self._count}", np.array(values, np.int64))

    def weight(self, name: str, values: NDArray[Any]) -> str:
        """Add a weight unless there is one of that name; return the name."""
        if name not in self.initializers:  # asarray: ascontiguousarray would make a scalar one-dimensional
            self.initializers[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return name

    def values(self, name: str) -> NDArray[Any] | None:
        """Return the values of a weight; None where the tensor is computed."""
        item = self.initializers.get(name)
        return None if item is None else numpy_helper.to_array(item)

    def finish(self) -> None:
        """Replace the graph's nodes, and drop the weights that none of them reads."""
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [item for name, item in self.initializers.items() if name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        # These shapes belong to the old nodes; the parser infers shapes by itself.
        del self._graph.value_info[:]


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
