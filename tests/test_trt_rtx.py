"""The real TensorRT-RTX, which needs no GPU to build: it parses and builds every exported graph."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from rtx_loops import loop_bodies

from dmcodec.bundle import GRAPH_NAMES, Bundle, GraphSpec, read_manifest
from dmcodec.cli import main
from dmcodec.config import CodecConfig
from dmcodec.errors import EngineBuildError, EngineError, ExportError, GpuError, MissingDependencyError
from dmcodec.export.graphs import build_graphs
from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
from dmcodec.export.tensorrt.builder import build_plan
from dmcodec.export.tensorrt.inspection import inspect_engine, precision_problem
from dmcodec.export.tensorrt.options import FLAGS
from dmcodec.export.tensorrt.rewrite import rewrite, rewritten
from dmcodec.runtime import Codec
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.runtime.tensorrt.driver import gpu_or_none
from dmcodec.runtime.tensorrt.engine import Engine
from dmcodec.runtime.tensorrt.library import TENSORRT_RTX, Library
from dmcodec.runtime.tensorrt.profiles import ShapeRequest

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec

REQUEST = ShapeRequest.parse("0.1s:1s:10s", "1:1:8", None)
MOST_KERNELS = 4  # of a frame and layer, in any loop


@pytest.fixture(scope="module")
def rtx() -> Library:
    try:
        return Library.load(TENSORRT_RTX)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def half_graphs(tiny_model: DMCodec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half")
    for name, graph in build_graphs(tiny_model, "fp16").items():
        onnx.save(graph.model, folder / f"{name}.onnx")
    return folder


def session(model: bytes) -> Any:
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return import_onnxruntime().InferenceSession(model, options)


def whole(path: Path) -> bytes:
    """Return a graph with its weights inside."""
    return bytes(onnx.load(path).SerializeToString())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("lengths", [(1600, 901, 321), (641, 1, 5), (3200, 3200, 3200)])
def test_the_form_for_tensorrt_is_the_same_function(
    precision: str, lengths: tuple[int, ...], tiny_bundle: Path, half_graphs: Path
) -> None:
    # Between layers of half precision, a difference of float32 rounding can grow to one of float16.
    atol = 2e-6 if precision == "fp32" else 2e-3
    folder = tiny_bundle if precision == "fp32" else half_graphs
    rng = np.random.default_rng(0)
    waveform = rng.normal(0, 0.1, (3, 1, max(lengths))).astype(np.float32)
    inputs = {"waveform": waveform, "lengths": np.array(lengths, np.int64)}
    frames = [-(-length // 320) for length in lengths]
    want, got = (
        session(model).run(None, inputs)[0]
        for model in (whole(folder / "encoder.onnx"), rewritten(folder / "encoder.onnx"))
    )
    for row, count in enumerate(frames):
        np.testing.assert_allclose(got[row, :, :count], want[row, :, :count], rtol=0, atol=atol)
    inputs = {"latents": want, "lengths": np.array(frames, np.int64)}
    want, got = (
        session(model).run(None, inputs)[0]
        for model in (whole(folder / "decoder.onnx"), rewritten(folder / "decoder.onnx"))
    )
    for row, count in enumerate(frames):
        np.testing.assert_allclose(got[row, :, : count * 320], want[row, :, : count * 320], rtol=0, atol=atol)


def test_nodes_without_a_tensorrt_form_are_named(tiny_bundle: Path, half_graphs: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(ExportError, match="can't be read as an ONNX graph"):
        rewritten(tmp_path / "x.onnx")
    model = onnx.load(half_graphs / "encoder.onnx")
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input.extend(["initial_h", "initial_c", "P"])
    with pytest.raises(ExportError, match="LSTM_1: no TensorRT form"):
        rewrite(model)


STREAM_LSTMS = ("encoder_lstm_0_backward", "encoder_lstm_1_forward")
WITH_LSTM = ("encoder", "decoder", "decoder_recurrent", *STREAM_LSTMS)
FIXED = ShapeRequest.parse(None, None, "1s")


@pytest.mark.parametrize(
    ("precision", "name", "request_"),
    [
        *(("fp32", name, REQUEST) for name in (*GRAPH_NAMES, *STREAM_LSTMS)),
        *(("fp16", name, REQUEST) for name in GRAPH_NAMES if not name.endswith("quantizer")),  # those stay float32
        *((precision, name, FIXED) for precision in ("fp32", "fp16") for name in ("encoder", "decoder")),
        *(("fp32", name, FIXED) for name in ("quantizer", "dequantizer")),
    ],
)
def test_every_graph_builds_for_capture_with_few_kernels_in_its_loops(
    precision: str,
    name: str,
    request_: ShapeRequest,
    rtx: Library,
    tiny_bundle: Path,
    half_graphs: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REQUIRE_USER_ALLOCATION is what capturing a stream needs. A step of a loop is a frame of an LSTM layer."""
    manifest = read_manifest(tiny_bundle)
    spec = manifest.graphs[name]
    profiles = request_.profiles(name, spec, manifest.config)
    folder = tiny_bundle if precision == "fp32" else half_graphs
    monkeypatch.setitem(FLAGS, "tf32", "REQUIRE_USER_ALLOCATION")
    built = build_plan(rtx, name, rewritten(folder / spec.file), profiles, BuildOptions(tf32=True))
    assert len(built.plan) > 10_000
    assert built.timing_cache is None
    found = inspect_engine(rtx, name, built.plan, built.lines, gpu_or_none())
    assert precision_problem(precision, found) is None
    assert found.layers > 1
    bodies = loop_bodies(built.lines)
    layers = 0 if name not in WITH_LSTM else 1 if name in STREAM_LSTMS else manifest.config.lstm_layers
    assert len(bodies) >= layers
    assert bool(bodies) == bool(layers)
    assert max((body.kernels_per_step for body in bodies), default=0) <= MOST_KERNELS
    if bodies:  # most frames run in the unrolled body
        assert min(body.kernels_per_step for body in bodies) <= 2


@pytest.mark.parametrize("name", ["encoder", "decoder_recurrent", "decoder_upsampler"])
def test_a_causal_codec_builds(name: str, rtx: Library, tmp_path: Path) -> None:
    from dmcodec.nn import DMCodec

    small = CodecConfig(n_filters=2, dimension=8, semantic_dimension=8, strides=(5, 2), codebook_size=16)
    config = dataclasses.replace(small, bidirectional=False, causal=True)
    graph, path = build_graphs(DMCodec.seeded(config), "fp32")[name], tmp_path / f"{name}.onnx"
    onnx.save(graph.model, path)
    spec = GraphSpec(path.name, "", 0, graph.precision, graph.inputs, graph.outputs)
    profiles = REQUEST.profiles(name, spec, config)
    assert len(build_plan(rtx, name, rewritten(path), profiles, BuildOptions()).plan) > 10_000


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_full_size_graph_parses_and_builds(
    precision: str, rtx: Library, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--full-size"):
        pytest.skip("takes a minute and 2 GB; pass --full-size")
    from dmcodec.nn import DMCodec

    config = CodecConfig()
    for name, graph in build_graphs(DMCodec.seeded(config).eval(), precision).items():
        path = tmp_path / f"{name}.onnx"
        onnx.save(graph.model, path)
        spec = GraphSpec(path.name, "", 0, graph.precision, graph.inputs, graph.outputs)
        profiles = ShapeRequest.parse(None, None, "1s").profiles(name, spec, config)
        built = build_plan(rtx, name, rewritten(path), profiles, BuildOptions())
        found = inspect_engine(rtx, name, built.plan, built.lines, gpu_or_none())
        assert precision_problem(graph.precision, found) is None
        path.unlink()


def test_fixed_shapes_and_targets_build_too(rtx: Library, tiny_bundle: Path, tmp_path: Path) -> None:
    opened, options = Bundle.open(tiny_bundle), BuildOptions(compute_capabilities=("8.6", "8.9", "12.0"))
    request = ShapeRequest.parse("0.1s:1s:2s", "1:1:2", "0.5s,1sx2")
    calls = []
    planned = plan_engines(opened, rtx, None, request, options, ["quantizer"], tmp_path)
    reports = build_engines(opened, rtx, None, planned, options, tmp_path, lambda *call: calls.append(call))
    assert [report.record.key.architectures for report in reports] == [("sm_86", "sm_89", "sm_120")]
    assert any("Building engine" in phase for phase, _, _ in calls)
    again = plan_engines(opened, rtx, None, request, options, ["quantizer"], tmp_path)
    assert not any(item.build for item in again)


def test_errors_carry_the_librarys_log(rtx: Library, tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    encoder = manifest.graphs["encoder"]
    profiles = REQUEST.profiles("encoder", encoder, manifest.config)
    model = rewritten(tiny_bundle / "encoder.onnx")
    with pytest.raises(EngineBuildError, match=r"encoder: tensorrt-rtx \S+ can't parse this graph \(.+\)"):
        build_plan(rtx, "encoder", b"\x08not a graph", profiles, BuildOptions())
    if not rtx.version.startswith("1.7."):
        return  # other versions may build it
    with pytest.raises(EngineBuildError, match=r"the build failed \(.*FP32 GEMM is not supported"):
        build_plan(rtx, "encoder", model, profiles, BuildOptions(compute_capabilities=("7.5",)))


def test_without_a_gpu_running_is_refused_not_crashed(rtx: Library, tiny_bundle: Path) -> None:
    if gpu_or_none() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(GpuError, match=r"no NVIDIA driver on this machine|driver can't be used|driver sees 0"):
        Codec.load(tiny_bundle, backend="tensorrt")
    with pytest.raises(EngineError, match=r"x: can't be loaded|x: .* can't run this engine here"):
        Engine(rtx, b"not a plan", "x")


def dmcodec(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dmcodec.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str]]:
    """Run the command line in this process; return its exit code and its stderr."""

    def run(*arguments: object) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["dmcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr().err

    return run


def test_the_command_line_builds_engines(rtx: Library, copy_of_tiny_bundle: Path) -> None:
    call = ("export", "--format", "trt", "--flavour", "tensorrt-rtx", "--bundle", copy_of_tiny_bundle, "--json")
    shapes = ("--profile", "0.1s:1s:2s", "--batch", "1:1:2", "--graphs", "quantizer,dequantizer")
    [dry, built] = (dmcodec(*call, *shapes, *more) for more in (("--dry-run",), ()))
    assert [row["reason"] for row in json.loads(dry.stdout)["engines"]] == ["not built yet"] * 2
    rows = json.loads(built.stdout)["engines"]
    assert [row["facts"]["precision"] for row in rows] == ["fp32", "fp32"]
    assert all(row["build_s"] > 0 for row in rows)
    assert len(Bundle.open(copy_of_tiny_bundle).manifest.engines) == 2
    info = dmcodec("info", "--bundle", copy_of_tiny_bundle)
    assert "engine quantizer" in info.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--precision", "fp16"), 2, "--precision fp16: .* is fp32"),
        (("--profile", "5"), 2, "not a duration"),
        (("--out", "x"), 2, "--bundle: it has its weights"),
        (("--compute-capability", "9.0"), 2, "knows"),
        (("--version-compatible",), 2, "no lean runtime"),
    ],
)
def test_wrong_calls_are_one_line(
    arguments: tuple[str, ...], code: int, said: str, rtx: Library, tiny_bundle: Path, refused: Any
) -> None:
    call = ("export", "--format", "trt", "--flavour", "tensorrt-rtx", "--bundle", tiny_bundle)
    found, error = refused(*call, *arguments)
    assert found == code
    assert re.search(said, error)
    assert len(error.strip().splitlines()) == 1


def test_options_for_engines_need_the_format(refused: Any) -> None:
    found = refused("export", "--seed", "0", "--out", "x", "--fixed-shapes", "1s")
    assert found == (2, "error: --fixed-shapes is for --format trt only\n")
    found = refused("export", "--seed", "0", "--out", "x", "--format", "trt", "--dry-run", "--flavour", "tensorrt-rtx")
    assert found[1].startswith("error: ")


def test_engines_are_built_without_torch() -> None:
    code = "import dmcodec.export.tensorrt, dmcodec.runtime.tensorrt.backend, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(gpu_or_none() is None, reason="needs an NVIDIA GPU")
def test_engines_run_on_this_gpu(copy_of_tiny_bundle: Path) -> None:
    """Build for this GPU, run, and compare with ONNX Runtime: directly, from CUDA graphs, padded and streamed."""
    from dmcodec.sample import speech

    library, gpu = Library.find(), gpu_or_none()
    opened, options = Bundle.open(copy_of_tiny_bundle), BuildOptions()
    request = ShapeRequest.parse("0.1s:1s:10s", "1:1:8", "1s")
    build_engines(opened, library, gpu, plan_engines(opened, library, gpu, request, options), options)
    reference = Codec.load(copy_of_tiny_bundle, threads=1)
    codec = Codec.load(copy_of_tiny_bundle, backend="tensorrt")
    for _ in range(3):
        waveforms = [speech(length, 16000) for length in (1, 15900, 16000, 40000)]
        for got, want in zip(
            codec.encode_batch(waveforms, 16000), reference.encode_batch(waveforms, 16000), strict=True
        ):
            assert (got.codes == want.codes).mean() > 0.99
            audio, expected = codec.decode(want), reference.decode(want)
            assert np.abs(audio - expected).max() < 1e-3 * max(1e-3, np.abs(expected).max())
