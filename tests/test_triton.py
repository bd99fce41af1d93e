"""The Triton model repository: the server's own schema, a simulated server against `Codec`, and the shipped client."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from numpy.typing import NDArray

from dmcodec.bundle import Bundle
from dmcodec.errors import ArgumentError, BundleNotFoundError, ExportError, OutputExistsError, ParityError
from dmcodec.export.agreement import snr_db
from dmcodec.export.triton import TritonOptions, export_triton
from dmcodec.export.triton import repository as repository_module
from dmcodec.export.triton.batched_graphs import batched_quantizer
from dmcodec.export.triton.simulation import (
    Simulation,
    read_config,
    speech_stream,
    synthesize_request,
    tokenize_request,
)
from dmcodec.runtime import Codec
from dmcodec.runtime.tensorrt.engine_store import EngineKey, EngineStore, this_system
from dmcodec.runtime.tensorrt.profiles import Profile, Shapes
from dmcodec.sample import speech

pytest.importorskip("tritonclient.grpc")
MODELS = {
    "encoder", "quantizer", "dequantizer", "decoder", "decoder_recurrent", "decoder_upsampler", "tokenize",
    "synthesize",
}  # fmt: skip


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle)


@pytest.fixture(scope="module")
def repository(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "models"
    export_triton(tiny_bundle, path, TritonOptions(max_batch_size=4, instances=2, max_queue_delay_ms=2.5))
    return path


@pytest.fixture(scope="module")
def simulation(repository: Path) -> Simulation:
    return Simulation(repository)


def clips(*lengths: int) -> list[NDArray[np.float32]]:
    return [speech(4000 * index + length, 16000)[-length:] for index, length in enumerate(lengths)]


def test_the_repository_is_as_the_server_wants_it(repository: Path) -> None:
    for name in MODELS:
        config = read_config(repository / name / "config.pbtxt")
        assert config.name == name
        assert config.max_batch_size == 4
        assert (repository / name / "1").is_dir()
        if name in ("tokenize", "synthesize"):
            assert config.platform == "ensemble"
            assert config.parameters["sample_rate"].string_value == "16000"
            continue
        assert (config.platform, config.backend) == ("onnxruntime_onnx", "onnxruntime")
        [group] = config.instance_group
        assert (group.count, group.kind) == (2, group.KIND_GPU)
        assert config.dynamic_batching.max_queue_delay_microseconds == 2500
        assert {sample.batch_size for sample in config.model_warmup} == {1, 4}
        model = onnx.load(repository / name / "1" / "model.onnx").graph
        for entries, tensors in ((config.input, model.input), (config.output, model.output)):
            assert [entry.name for entry in entries] == [tensor.name for tensor in tensors]
            for entry, tensor in zip(entries, tensors, strict=True):
                shape = [dim.dim_value or -1 for dim in tensor.type.tensor_type.shape.dim]
                inner = entry.reshape.shape if entry.HasField("reshape") else entry.dims
                assert [-1, *inner] == shape  # the batch comes first, everywhere
    facts = json.loads((repository / "dmcodec.json").read_text())
    assert facts["max_batch_size"] == 4
    assert (repository / "encoder/1/model.onnx").read_bytes()


def test_another_schema_is_refused(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text((repository / "encoder/config.pbtxt").read_text() + "\nmax_latency: 5\n")
    with pytest.raises(ExportError, match="max_latency"):
        read_config(tmp_path / "config.pbtxt")


def test_warm_up_runs(simulation: Simulation) -> None:
    simulation.warm_up()


def test_tokens_are_those_of_codec(simulation: Simulation, codec: Codec) -> None:
    """Requests of one shape are batched. Only their true lengths matter."""
    waveforms = clips(8000, 7999, 6401, 1, 4000, 320)
    padded = [8000, 8000, 8000, 8000, 4000, 4160]
    answers = simulation.infer(
        "tokenize", [tokenize_request(clip, size) for clip, size in zip(waveforms, padded, strict=True)]
    )
    for answer, clip in zip(answers, waveforms, strict=True):
        expected = codec.encode(clip, 16000).codes
        frames = int(answer["frames"][0, 0])
        np.testing.assert_array_equal(answer["codes"][0, :, :frames], expected)


def test_padding_after_a_clip_changes_nothing(simulation: Simulation, codec: Codec) -> None:
    [clip] = clips(5000)
    request = dict(tokenize_request(clip, 8000))
    request["waveform"][0, 0, 5000:] = 0.7
    [answer] = simulation.infer("tokenize", [request])
    np.testing.assert_array_equal(answer["codes"][0, :, :16], codec.encode(clip, 16000).codes)


def test_audio_is_that_of_codec(simulation: Simulation, codec: Codec) -> None:
    tokens = [codec.encode(clip, 16000) for clip in clips(8000, 7999, 5000, 1)]
    higher = [item.levels(3, skip=level) for level, item in enumerate(tokens[:3])]
    for parts in (tokens, higher, [*tokens[:2], higher[1]]):
        answers = simulation.infer("synthesize", [synthesize_request(part, 25) for part in parts])
        for answer, part in zip(answers, parts, strict=True):
            audio = answer["waveform"][0, 0, : part.num_samples]
            assert snr_db(codec.decode(part), audio) >= 110


def test_a_request_of_several_clips(simulation: Simulation, codec: Codec) -> None:
    waveforms = clips(3200, 2000)
    requests = [tokenize_request(clip, 3200) for clip in waveforms]
    joined = {name: np.concatenate([request[name] for request in requests]) for name in requests[0]}
    [answer] = simulation.infer("tokenize", [joined])
    for row, clip in enumerate(waveforms):
        codes = codec.encode(clip, 16000).codes
        np.testing.assert_array_equal(answer["codes"][row, :, : codes.shape[1]], codes)
    too_many = {name: np.concatenate([array] * 5) for name, array in requests[0].items()}
    with pytest.raises(ExportError, match="batch sizes"):
        simulation.infer("tokenize", [too_many])
    with pytest.raises(ExportError, match="lengths is int32"):
        simulation.infer("tokenize", [{**requests[0], "lengths": np.zeros((1, 1), np.int32)}])


def test_a_wrong_request_does_not_fail_its_neighbours(simulation: Simulation, codec: Codec) -> None:
    tokens = codec.encode(clips(3200)[0], 16000)
    good, bad = synthesize_request(tokens, 10), dict(synthesize_request(tokens, 10))
    bad["codes"] = np.full_like(bad["codes"], 10**6)
    bad["first_level"] = np.array([[-5]])
    answers = simulation.infer("synthesize", [good, bad])
    assert snr_db(codec.decode(tokens), answers[0]["waveform"][0, 0]) >= 110


def test_a_repository_that_differs_is_not_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(path: Path, config: Any) -> onnx.ModelProto:
        model = right(path, config)
        for node in model.graph.node:
            if node.op_type == "ArgMin":
                node.op_type = "ArgMax"
        return model

    right = batched_quantizer
    monkeypatch.setattr(repository_module, "batched_quantizer", wrong)
    with pytest.raises(ParityError, match="Nothing was written"):
        export_triton(tiny_bundle, tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


def put_engine(folder: Path, graph: str, graph_sha256: str, flavour: str = "tensorrt") -> str:
    """An engine as `dmcodec export --format trt` stores it, with a stand-in for the plan; its file's name."""
    fixed = Profile("1s", {"x": Shapes((4, 1, 1600), (4, 1, 1600), (4, 1, 1600))}, fixed=True)
    wide = Profile("range", {"x": Shapes((1, 1, 1600), (1, 1, 16000), (16, 1, 480000))})
    key = EngineKey(graph, graph_sha256, 1, "fp32", (fixed, wide), flavour, "11.4", ("sm_90",), this_system(), {})
    EngineStore(folder).store(key, f"plan of {graph}".encode(), {"precision": "fp32"})
    return key.file


def test_engines_become_plans(copy_of_tiny_bundle: Path, tmp_path: Path) -> None:
    graphs = Bundle.open(copy_of_tiny_bundle).manifest.graphs
    engines, options = copy_of_tiny_bundle / "engines", TritonOptions(platform="tensorrt")
    with pytest.raises(BundleNotFoundError, match="--format trt"):
        export_triton(copy_of_tiny_bundle, tmp_path / "models", options)
    files = {}
    for graph in ("encoder", "decoder"):
        files[graph] = put_engine(engines, graph, graphs[graph].sha256)
        put_engine(engines, graph, graphs[graph].sha256, flavour="tensorrt-rtx")
        put_engine(engines, graph, "of another graph")
    facts = export_triton(copy_of_tiny_bundle, tmp_path / "models", options)
    found = {name: engine["file"] for name, engine in facts["engines"].items()}
    assert found == files
    assert facts["engines"]["encoder"]["tensorrt"] == "11.4"
    for name in ("encoder", "decoder"):
        config = read_config(tmp_path / "models" / name / "config.pbtxt")
        assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "model.plan")
        assert list(config.instance_group[0].profile) == ["1"]
        assert (tmp_path / "models" / name / "1" / "model.plan").read_bytes() == f"plan of {name}".encode()
    assert read_config(tmp_path / "models/quantizer/config.pbtxt").backend == "onnxruntime"
    with pytest.raises(BundleNotFoundError, match="batches of 1 to 32"):
        export_triton(copy_of_tiny_bundle, tmp_path / "m2", TritonOptions(platform="tensorrt", max_batch_size=32))
    for path in engines.glob("decoder*.engine"):
        path.write_bytes(b"cut")
    with pytest.raises(BundleNotFoundError, match="altered after the build"):
        export_triton(copy_of_tiny_bundle, tmp_path / "m2", options)
    assert not (tmp_path / "m2").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"platform": "caffe"},
        {"kind": "tpu"},
        {"kind": "cpu", "platform": "tensorrt"},
        {"instances": 0},
        {"max_batch_size": 0},
        {"max_batch_size": 1000},
        {"max_queue_delay_ms": -1},
        {"max_queue_delay_ms": float("nan")},
        {"server_cache": "engines"},
    ],
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        TritonOptions(**wrong)


# The shipped client, against a gRPC server that answers with the simulation


@pytest.fixture
def server(simulation: Simulation) -> Iterator[str]:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    dtypes: dict[str, np.dtype[Any]] = {"FP32": np.dtype(np.float32), "INT64": np.dtype(np.int64)}

    class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the service's names
            return service_pb2.ModelConfigResponse(config=simulation.configs[request.name])

        def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
            arrays = {
                entry.name: np.frombuffer(raw, dtypes[entry.datatype]).reshape(tuple(entry.shape))
                for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True)
            }
            [outputs] = simulation.infer(request.model_name, [arrays])
            response = service_pb2.ModelInferResponse(model_name=request.model_name)
            for name, array in outputs.items():
                datatype = next(key for key, dtype in dtypes.items() if dtype == array.dtype)
                response.outputs.add(name=name, datatype=datatype, shape=array.shape)
                response.raw_output_contents.append(array.tobytes())
            return response

    found = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), found)
    port = found.add_insecure_port("127.0.0.1:0")
    found.start()
    yield f"127.0.0.1:{port}"
    found.stop(None).wait()


def load_client(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("triton_client", repository / "client.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_client(repository: Path, server: str, codec: Codec) -> None:
    client = load_client(repository).Client(server)
    assert (client.sample_rate, client.hop_length, client.n_q) == (16000, 320, 8)
    waveforms = clips(8000, 5001, 1)
    codes = client.tokenize(waveforms)
    for item, clip in zip(codes, waveforms, strict=True):
        np.testing.assert_array_equal(item, codec.encode(clip, 16000).codes)
    np.testing.assert_array_equal(client.tokenize(waveforms[:1], n_q=2)[0], codes[0][:2])
    for audio, clip in zip(client.synthesize(codes), waveforms, strict=True):
        expected = codec.decode(codec.encode(clip, 16000))
        assert snr_db(expected, audio[: len(expected)]) >= 110
    expected = codec.decode(dataclasses.replace(codec.encode(waveforms[0], 16000), num_samples=8000).levels(skip=3))
    assert snr_db(expected, client.synthesize([codes[0][3:]], first_level=3)[0]) >= 110
    for wrong in ([np.zeros(0, np.float32)], [np.zeros(31 * 16000, np.float32)]):
        with pytest.raises(ValueError, match="30 s"):
            client.tokenize(wrong)
    with pytest.raises(ValueError, match="below 64"):
        client.synthesize([codes[0] + 64])


def test_the_clients_streams(repository: Path, server: str, codec: Codec) -> None:
    """Any pushes, clips that are shorter than the look-ahead, and higher levels alone."""
    client = load_client(repository).Client(server)
    for length, first_level, sizes in ((8000, 0, (5,)), (9000, 0, (1, 7, 2)), (700, 0, (1,)), (8000, 3, (25,))):
        tokens = codec.encode(clips(length)[0], 16000).levels(skip=first_level)
        stream, audio, start, turn = client.stream(first_level), [], 0, 0
        while start < tokens.num_frames:
            size = sizes[turn % len(sizes)]
            audio.append(stream.push(tokens.codes[:, start : start + size].astype(np.int64)))
            start, turn = start + size, turn + 1
        samples = np.concatenate([*audio, stream.finish()])
        assert len(samples) == tokens.num_frames * 320
        assert snr_db(codec.decode(tokens), samples[: tokens.num_samples]) >= 110
        assert sum(map(len, audio)) > 0 or tokens.num_frames < 5  # most of it before the end


def test_pushes_of_many_streams_run_in_one_batch(simulation: Simulation, codec: Codec) -> None:
    tokens = [codec.encode(clip, 16000) for clip in clips(8000, 8000, 8000)]
    streams = [speech_stream(simulation) for _ in tokens]
    alone = [stream.push(item.codes[:, :12].astype(np.int64)) for stream, item in zip(streams, tokens, strict=True)]
    asked: list[tuple[str, Any]] = []

    def recorded(infer: Any) -> Any:
        def record(model: str, request: Any, names: Any) -> Any:
            asked.append((model, request))
            return infer(model, request, names)

        return record

    for stream, item in zip(streams, tokens, strict=True):
        stream._infer = recorded(stream._infer)
        stream.push(item.codes[:, 12:17].astype(np.int64))
    assert len(alone[0]) > 0
    for model in ("decoder_recurrent", "decoder_upsampler"):
        requests = [request for name, request in asked if name == model]
        assert len({tuple(array.shape for array in request.values()) for request in requests}) == 1
        together = simulation.infer(model, requests)
        for answer, request in zip(together, requests, strict=True):
            [single] = simulation.infer(model, [request])
            for name in answer:
                np.testing.assert_allclose(answer[name], single[name], atol=1e-5)


def test_the_client_on_the_command_line(repository: Path, server: str, codec: Codec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "in.wav", speech(20000, 16000), 16000, subtype="PCM_16")
    command = [sys.executable, str(repository / "client.py"), str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    tokens = tmp_path / "codes.npy"
    subprocess.run([*command, "--url", server, "--tokens", str(tokens)], check=True, capture_output=True)
    samples = soundfile.read(tmp_path / "in.wav", dtype="float32")[0]
    np.testing.assert_array_equal(np.load(tokens), codec.encode(samples, 16000).codes)
    assert soundfile.info(tmp_path / "out.wav").frames == 20000
    soundfile.write(tmp_path / "in.wav", np.zeros((100, 2)), 44100)
    done = subprocess.run([*command, "--url", server], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "16-bit mono WAV at 16000 Hz" in done.stderr


def test_the_command(tiny_bundle: Path, tiny_model_files: tuple[Path, Path], tmp_path: Path) -> None:
    verb = [sys.executable, "-c", "from dmcodec.cli import main; main()", "export", "--out", str(tmp_path / "models")]
    checkpoint, config = map(str, tiny_model_files)
    served = [*verb, "--format", "triton", "--kind", "cpu"]
    weights = ["--checkpoint", checkpoint, "--config", config]
    done = subprocess.run([*served, *weights, "--instances", "3", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["instances"] == 3
    assert read_config(tmp_path / "models/decoder/config.pbtxt").instance_group[0].count == 3
    for command, code, words in (
        ([*served, "--bundle", str(tiny_bundle)], 1, "exists already"),
        ([*served], 1, "exists already"),  # without a name it is the codec that comes with dmcodec
        ([*verb, *weights, "--kind", "cpu"], 2, "is for --format triton only"),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
    with pytest.raises(OutputExistsError):
        export_triton(tiny_bundle, tmp_path / "models")
