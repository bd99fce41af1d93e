"""Rewriting of a finished ONNX graph: nodes are taken out, and others put in their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class Rewriting:
    """The nodes and the weights of a graph while it is rewritten.

    Args:
        model: with its weights; it is not changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._values = {item.name: item for item in model.graph.initializer}
        self._stored: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._counts: dict[str, int] = {}

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of the graph as it was."""
        yield from self._model.graph.node

    def values(self, name: str) -> NDArray[Any]:
        """Return a weight of the graph as it was."""
        array: NDArray[Any] = numpy_helper.to_array(self._values[name])
        return array

    def keep(self, node: onnx.NodeProto) -> None:
        """Put a node of the graph in the next place, as it is."""
        self._nodes.append(node)

    def add(self, op_type: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> list[str]:
        """Put a new node in the next place; return its outputs. `domain` is one of the attributes."""
        name = next(output for output in outputs if output)
        self._nodes.append(helper.make_node(op_type, list(inputs), list(outputs), name=name, **attributes))
        return list(outputs)

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Put a new node with one output in the next place; return the output."""
        self._counts[op_type] = self._counts.get(op_type, 0) + 1
        return self.add(op_type, inputs, [f"int8_{op_type}_{self._counts[op_type]}"], **attributes)[0]

    def store(self, name: str, values: NDArray[Any]) -> str:
        """Store a weight, in place of the one of this name if the graph has one."""
        self._stored[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """Store a small constant; equal ones are stored once."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            name = f"int8_constant_{len(self._constants)}"
            self._stored[name] = numpy_helper.from_array(values, name)
            self._constants[key] = name
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """Store a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """Store a constant float32 number."""
        return self.constant(np.array(value, np.float32))

    def finish(self) -> onnx.ModelProto:
        """Return the rewritten model, without the weights that no node takes."""
        model = onnx.ModelProto()
        model.CopyFrom(self._frame())
        taken = {name for node in self._nodes for name in node.input}
        kept = [item for name, item in {**self._values, **self._stored}.items() if name in taken]
        model.graph.node.extend(self._nodes)
        model.graph.initializer.extend(kept)
        domains = {node.domain for node in self._nodes} - {item.domain for item in model.opset_import}
        model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in sorted(domains))
        return model

    def _frame(self) -> onnx.ModelProto:
        """Return the model without nodes and weights."""
        old = self._model
        graph = helper.make_graph([], old.graph.name, old.graph.input, old.graph.output)
        return helper.make_model(
            graph, opset_imports=old.opset_import, ir_version=old.ir_version, producer_name=old.producer_name
        )
