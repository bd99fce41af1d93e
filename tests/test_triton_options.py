"""Options of the Triton models: what ONNX Runtime gets after the server's own rules, warm-up, profiles and caches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from dmcodec.errors import ExportError
from dmcodec.export.triton import TritonOptions, export_triton
from dmcodec.export.triton.client import BUCKET_S
from dmcodec.export.triton.configs import holds_request, schema
from dmcodec.export.triton.effective import effective_options, set_cuda_options
from dmcodec.export.triton.simulation import read_config
from dmcodec.runtime.providers import cuda_options
from dmcodec.runtime.tensorrt.profiles import Profile, Shapes

pytest.importorskip("tritonclient.grpc")


@pytest.fixture(scope="module")
def repository(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "models"
    export_triton(tiny_bundle, path, TritonOptions(max_batch_size=4))
    return path


def test_cuda_gets_the_options_of_the_runtime(repository: Path) -> None:
    """What is left after the server's own rules, not what stands in the file."""
    for name in ("encoder", "quantizer", "dequantizer", "decoder"):
        effective = effective_options(read_config(repository / name / "config.pbtxt"))["cuda"]
        expected = {key: value for key, value in cuda_options("fp32", 0).items() if key != "device_id"}
        assert expected.items() <= effective.items()
        assert (effective["cudnn_conv_algo_search"], effective["use_tf32"]) == ("HEURISTIC", "0")


def test_the_servers_rules_override_an_accelerators_options() -> None:
    config = schema().ModelConfig(name="m")
    given = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0", "gpu_mem_limit": "1000"}
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    accelerators.add(name="cuda", parameters=given)
    effective = effective_options(config)["cuda"]
    assert (effective["cudnn_conv_algo_search"], effective["use_tf32"]) == ("EXHAUSTIVE", "0")
    assert effective["gpu_mem_limit"] == "18446744073709551615"
    other = schema().ModelConfig(name="m")
    set_cuda_options(other, given)
    assert given.items() <= effective_options(other)["cuda"].items()
    accelerators.add(name="openvino")
    with pytest.raises(ExportError, match="no accelerator 'openvino'"):
        effective_options(config)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("tensorrt", {"trt_op_types_to_exclude": "LSTM"}, "has no parameter trt_op_types_to_exclude"),
        ("tensorrt", {"precision_mode": "TF32"}, "no precision_mode 'TF32'"),
    ],
)
def test_an_option_that_keeps_the_model_from_loading_is_found(
    name: str, parameters: dict[str, str], words: str
) -> None:
    config = schema().ModelConfig(name="m")
    config.optimization.execution_accelerators.gpu_execution_accelerator.add(name=name, parameters=parameters)
    with pytest.raises(ExportError, match=words):
        effective_options(config)
    config = schema().ModelConfig(name="m")
    config.parameters["cudnn_conv_algo_search"].string_value = "HEURISTIC"
    with pytest.raises(ExportError, match="no cudnn_conv_algo_search 'HEURISTIC'"):
        effective_options(config)


def test_the_warm_up_has_the_clients_shapes(repository: Path) -> None:
    bucket = round(BUCKET_S * 16000)
    for name, frames in (("encoder", 1), ("quantizer", 320), ("dequantizer", 320), ("decoder", 320)):
        config = read_config(repository / name / "config.pbtxt")
        tensor = next(entry.name for entry in config.input if entry.name in ("waveform", "latents", "codes"))
        shapes = [(sample.batch_size, sample.inputs[tensor].dims[-1] * frames) for sample in config.model_warmup]
        assert shapes == [(1, bucket), (1, 2 * bucket), (1, 10 * bucket), (1, 20 * bucket), (4, 2 * bucket)]
        for sample in config.model_warmup if name in ("encoder", "decoder") else ():
            file = repository / name / "warmup" / sample.inputs["lengths"].input_data_file
            length = np.frombuffer(file.read_bytes(), "<i8")
            assert list(length) == [sample.inputs[tensor].dims[-1]]


def test_the_tensorrt_accelerator(tiny_bundle: Path, tmp_path: Path) -> None:
    """It gets graphs that it builds, shapes to build for, and a place to keep engines."""
    options = TritonOptions(platform="onnxruntime-tensorrt", max_batch_size=4, server_cache="/engines")
    export_triton(tiny_bundle, tmp_path / "models", options)
    for name, expected in (("encoder", ["tensorrt", "cuda"]), ("quantizer", ["cuda"])):
        config = read_config(tmp_path / "models" / name / "config.pbtxt")
        found = config.optimization.execution_accelerators.gpu_execution_accelerator
        assert [accelerator.name for accelerator in found] == expected
    for name, largest in (("encoder", "waveform:4x1x480000,lengths:4"), ("decoder", "latents:4x32x1500,lengths:4")):
        effective = effective_options(read_config(tmp_path / "models" / name / "config.pbtxt"))["tensorrt"]
        assert effective["trt_profile_max_shapes"] == largest
        assert effective["trt_engine_cache_path"] == effective["trt_timing_cache_path"] == "/engines"
        assert effective["trt_engine_cache_enable"] == effective["trt_timing_cache_enable"] == "1"
        assert "trt_fp16_enable" not in effective
        kinds = {node.op_type for node in onnx.load(tmp_path / "models" / name / "1/model.onnx").graph.node}
        assert "Elu" not in kinds


def test_an_engine_is_warmed_up_at_shapes_that_it_has() -> None:
    wide = Profile("range", {"waveform": Shapes((1, 1, 1600), (1, 1, 16000), (4, 1, 80000))})
    assert [
        holds_request(wide, {"waveform": samples}, batch)
        for samples, batch in ((8000, 1), (80000, 4), (80001, 1), (8000, 5), (800, 1))
    ] == [True, True, False, False, False]
