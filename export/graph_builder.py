"""A builder of ONNX graphs: one call adds a node, equal constants are stored once, tensors are named after their op."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dmcodec.bundle import TensorSpec
from dmcodec.errors import ExportError
from dmcodec.precision import FP32, PRECISIONS, Arithmetic

OPSET = 17
IR_VERSION = 8  # of opset 17; ONNX Runtime reads it since 1.12, and TensorRT since 8.5

_ONNX_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
# fp16-weights rounds weights of at least this size; rounding smaller ones saves almost no space.
_MIN_ROUNDED_BYTES = 16384

TO_THE_END = 2**62  # of a Slice


@dataclasses.dataclass(frozen=True)
class Graph:
    """A finished graph.

    Attributes:
        model: the ONNX model with its weights.
        precision: of its arithmetic.
        inputs, outputs: descriptions of its tensors, for the manifest.
    """

    model: onnx.ModelProto
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class GraphBuilder:
    """Collects the nodes and weights of one graph.

    Args:
        name: of the graph.
        precision: a name of `dmcodec.precision.PRECISIONS`. "fp16-weights" computes in float32 and stores the large
            weights in half precision, each with a cast after it; ONNX Runtime folds the casts when it loads the graph.
        recurrent: the graph is an LSTM alone, so that its arithmetic is that of LSTMs.
    """

    def __init__(self, name: str, precision: str = "fp32", recurrent: bool = False) -> None:
        self.name = name
        row = PRECISIONS[precision]
        self.arithmetic = row.recurrent if recurrent else row.arithmetic
        self.recurrent, self._stored = row.recurrent, row.arithmetic
        self._rounds_weights = row.rounds_weights
        self._dtype = np.dtype(self.arithmetic.dtype)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._counts: dict[str, int] = {}

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the output's name."""
        output = self._unique(op_type)
        self._nodes.append(helper.make_node(op_type, list(inputs), [output], name=output, **attributes))
        return output

    def ops(self, op_type: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs, and return their names. "" stands for an optional input that is left out."""
        name = self._unique(op_type)
        outputs = [f"{name}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(op_type, list(inputs), outputs, name=name, **attributes))
        return outputs

    def alias(self, tensor: str, output: str) -> None:
        """Rename `tensor`, the output of the last node, to `output`."""
        node = self._nodes[-1]
        assert list(node.output) == [tensor], "only the last node can be renamed"
        node.output[0] = output

    def weight(self, name: str, values: NDArray[Any], exact: bool = False, parts: int = 1) -> str:
        """Add a weight, and return the name of the tensor in the precision of the arithmetic.

        Args:
            name: of the stored weight.
            values: its values.
            exact: never round it.
            parts: where `values` are one of so many equal parts of a weight, they are rounded as the whole weight is.
        """
        if self._rounds_weights and not exact and parts * values.size * self._dtype.itemsize >= _MIN_ROUNDED_BYTES:
            return self.cast(self._add(name, _converted(name, values, np.dtype(np.float16))))
        return self._add(name, _converted(name, values, self._dtype))

    def recurrent_weight(self, name: str, values: NDArray[Any], parts: int = 1) -> str:
        """Add a weight of an LSTM, stored as other weights are; return the tensor in the precision of LSTMs."""
        if self._rounds_weights:
            return self.weight(name, values, parts=parts)
        stored = self._add(name, _converted(name, values, np.dtype(self._stored.dtype)))
        return self.converted(stored, self._stored, self.recurrent)

    def ints(self, *values: int) -> str:
        """Add a constant int64 vector, and return its name."""
        return self.constant(np.array(values, np.int64))

    def constant(self, values: NDArray[Any]) -> str:
        """Add a small constant, and return its name; equal constants are stored once."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._constants:
            self._constants[key] = self._add(self._unique("constant"), values)
        return self._constants[key]

    def converted(self, tensor: str, source: Arithmetic, target: Arithmetic) -> str:
        """Cast a tensor from one precision to another, where they differ."""
        return tensor if source == target else self.op("Cast", tensor, to=_onnx_type(target))

    def cast_in(self, tensor: str) -> str:
        """Cast a float32 input to the arithmetic's precision, where that differs."""
        return self.converted(tensor, FP32, self.arithmetic)

    def cast_out(self, tensor: str) -> str:
        """Cast a result to a float32 output, where the arithmetic's precision differs."""
        return self.converted(tensor, self.arithmetic, FP32)

    def cast(self, tensor: str) -> str:
        """Cast a tensor of any type to the arithmetic's precision."""
        return self.op("Cast", tensor, to=_onnx_type(self.arithmetic))

    def to_int32(self, tensor: str) -> str:
        """Cast a tensor of any type to int32."""
        return self.op("Cast", tensor, to=TensorProto.INT32)

    def finish(self, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Graph:
        """Return the finished graph, checked by onnx with full shape inference."""
        graph = helper.make_graph(
            self._nodes,
            self.name,
            [_value_info(spec) for spec in inputs],
            [_value_info(spec) for spec in outputs],
            self._initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="dmcodec"
        )
        onnx.checker.check_model(model, full_check=True)
        return Graph(model, self.arithmetic.name, tuple(inputs), tuple(outputs))

    def _add(self, name: str, values: NDArray[Any]) -> str:
        self._initializers.append(numpy_helper.from_array(values, name))
        return name

    def _unique(self, stem: str) -> str:
        self._counts[stem] = self._counts.get(stem, 0) + 1
        return f"{stem}_{self._counts[stem]}"


def _converted(name: str, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(values, dtype=dtype)
    if not np.isfinite(converted).all():
        raise ExportError(f"{name}: values up to {np.abs(values).max():g} don't fit {dtype.name}")
    return converted


def _onnx_type(arithmetic: Arithmetic) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(arithmetic.dtype))


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _ONNX_TYPES[spec.dtype], list(spec.axes))
