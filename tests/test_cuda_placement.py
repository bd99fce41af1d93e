"""ONNX Runtime's CUDA provider would run all layers of every graph on the GPU, with few copies in between."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from cuda_placement import asymmetric, placement

from dmcodec.bundle import STEPS, read_manifest
from dmcodec.export.graphs import build_graphs
from dmcodec.nn import DMCodec

MOST_COPIES = 12  # of a graph that takes lengths: sizes of tensors, with which positions in items are compared
LAYERS = {"Conv", "LSTM", "Elu", "MatMul", "Gemm", "Pad", "Transpose", "ScatterElements", "GatherElements", "ArgMin"}


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def graphs(request: pytest.FixtureRequest, tiny_model: DMCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    for name, graph in build_graphs(tiny_model, request.param).items():
        onnx.save(graph.model, folder / f"{name}.onnx")
    return folder


def test_layers_run_on_the_gpu(graphs: Path, tmp_path: Path, tiny_bundle: Path) -> None:
    for name, spec in read_manifest(tiny_bundle).graphs.items():
        if name in STEPS.values():  # those run on the CPU only
            continue
        found = placement(graphs / f"{name}.onnx", tmp_path)
        assert found.without_kernel == [], name
        assert not {node.partition("_")[0] for node in found.on_cpu} & LAYERS, name
        takes_lengths = "lengths" in {tensor.name for tensor in spec.inputs}
        assert len(found.copies) <= (MOST_COPIES if takes_lengths else 0), name


def test_asymmetric_padding_and_unknown_operators_are_found(tmp_path: Path) -> None:
    model = asymmetric()
    onnx.save(model, tmp_path / "up.onnx")
    assert placement(tmp_path / "up.onnx", tmp_path).without_kernel == ["up: asymmetric pads [3, 2]"]
    next(item for item in model.graph.node[0].attribute if item.name == "pads").ints[:] = [2, 2]
    model.graph.node.append(onnx.helper.make_node("Celu", ["y"], ["z"], name="celu"))
    model.graph.output[0].name = "z"
    onnx.save(model, tmp_path / "celu.onnx")
    found = placement(tmp_path / "celu.onnx", tmp_path)
    assert found.without_kernel == ["celu: no kernel of Celu is known"]
    assert (set(found.on_cpu), set(found.copies)) == ({"celu"}, {"y"})
