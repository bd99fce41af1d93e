"""Where ONNX Runtime's CUDA provider would run each node of a graph: a lint that needs no GPU.

The provider takes a node where it has a kernel for its operator and type. Of those it leaves to the CPU what computes
on shapes: nodes all of whose inputs are on the CPU, small constants or inputs of the graph. The kernels are those of
ONNX Runtime's list, docs/OperatorKernels.md, the rule is that of its core/framework/fallback_cpu_capability.cc. What it
says was not compared with a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from dmcodec.runtime.onnxruntime_import import import_onnxruntime

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_NUMBERS = _FLOATS | {TensorProto.INT32, TensorProto.INT64}
_ALL = _NUMBERS | {TensorProto.BOOL}
# Operator -> types of its first input (of Where its second) for which the provider has a kernel.
KERNELS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "LSTM", "Elu", "Selu", "Sigmoid", "Tanh", "MatMul", "Gemm"), _FLOATS),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max", "Less", "Range", "ReduceSum", "Where"), _NUMBERS),
    **dict.fromkeys(("Pad", "ArgMin", "Clip", "Exp"), _FLOATS),
    **dict.fromkeys(
        (
            "Cast", "Concat", "ConstantOfShape", "Expand", "Gather", "GatherElements", "Identity", "Reshape",
            "ScatterElements", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
        ),
        _ALL,
    ),
}  # fmt: skip
# Operator -> inputs that its kernel reads on the CPU.
_ON_CPU = {
    "ConstantOfShape": (0,), "Expand": (1,), "LSTM": (4,), "Pad": (1, 2), "Range": (0, 1, 2), "ReduceSum": (1,),
    "Reshape": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Unsqueeze": (1,),
}  # fmt: skip
_SMALL = 100  # elements of a constant


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where the nodes of a graph run.

    Attributes:
        without_kernel: nodes with no kernel, or whose kernel falls back to the CPU; as text with their reason.
        on_cpu: names of nodes that are left to the CPU, those without a kernel included.
        copies: names of the tensors that a run copies between CPU and GPU, besides inputs and outputs of the graph.
        nodes: number of nodes.
    """

    without_kernel: Sequence[str]
    on_cpu: frozenset[str]
    copies: frozenset[str]
    nodes: int


def placement(path: Path, scratch: Path) -> Placement:
    """Return where the nodes of the graph at `path` run, after the optimisations that come before placement."""
    model = _optimised(path, scratch)
    graph, types = model.graph, _types(model)
    missing = {node.name: reason for node in graph.node if (reason := _problem(node, types))}
    on_cpu = _on_cpu(graph, types, set(missing))
    made_on_cpu = {name for node in graph.node for name in _cpu_outputs(node, on_cpu)}
    copies = set()
    made = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            wants_cpu = node.name in on_cpu or index in _ON_CPU.get(node.op_type, ())
            if name in made and wants_cpu != (name in made_on_cpu):
                copies.add(name)
    return Placement(
        [f"{name}: {reason}" for name, reason in missing.items()], frozenset(on_cpu), frozenset(copies), len(graph.node)
    )


def _optimised(path: Path, scratch: Path) -> onnx.ModelProto:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 3
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return onnx.shape_inference.infer_shapes(model)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {item.name: item.type.tensor_type.elem_type for item in values}
    return types | {item.name: item.data_type for item in graph.initializer}


def _problem(node: NodeProto, types: dict[str, int]) -> str | None:
    if node.op_type not in KERNELS:
        return f"no kernel of {node.op_type} is known"
    deciding = node.input[1 if node.op_type == "Where" else 0]
    if types[deciding] not in KERNELS[node.op_type]:
        return f"no kernel of {node.op_type} for {TensorProto.DataType.Name(types[deciding])}"
    pads = next((list(item.ints) for item in node.attribute if item.name == "pads"), [])
    if pads[: len(pads) // 2] != pads[len(pads) // 2 :]:
        return f"asymmetric pads {pads}"
    return None


def _cpu_outputs(node: NodeProto, on_cpu: set[str]) -> Sequence[str]:
    return node.output if node.name in on_cpu or node.op_type == "Shape" else ()


def _on_cpu(graph: onnx.GraphProto, types: dict[str, int], missing: set[str]) -> set[str]:
    small = {item.name for item in graph.initializer if np.prod(item.dims, dtype=np.int64) <= _SMALL}
    given = small | {item.name for item in graph.input}
    on_cpu, known = set(missing), set[str]()
    for node in graph.node:  # in topological order
        if node.name not in missing and node.op_type != "Shape" and known & set(node.input):
            halves = any(types.get(name) == TensorProto.FLOAT16 for name in node.input)
            computed = [index for index, name in enumerate(node.input) if name and name not in given]
            if not halves and all(
                node.input[index] in known and index not in _ON_CPU.get(node.op_type, ()) for index in computed
            ):
                on_cpu.add(node.name)
        known |= set(_cpu_outputs(node, on_cpu))
    return on_cpu


def asymmetric() -> onnx.ModelProto:
    """Return the transposed convolution of stride 5 as it was exported before: its padding is asymmetric."""
    weight = onnx.numpy_helper.from_array(np.zeros((4, 2, 10), np.float32), "weight")
    node = helper.make_node("ConvTranspose", ["x", "weight"], ["y"], name="up", strides=[5], pads=[3, 2])
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size, None]) for name, size in (("x", 4), ("y", 2))
    ]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
