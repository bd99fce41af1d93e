"""Planning and building engines, on a simulated TensorRT: profiles, options, keys, caches, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from fakes import library as fakes
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt
from hypothesis import given
from hypothesis import strategies as st

from dmcodec.bundle import Bundle, read_manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import (
    ArgumentError,
    BundleError,
    EngineBuildError,
    EngineWarning,
    GpuError,
    MissingDependencyError,
    OutputError,
)
from dmcodec.export.tensorrt import BuildOptions, BuildReport, PlannedEngine, build_engines, plan_engines
from dmcodec.export.tensorrt.builder import TimingCache, build_plan
from dmcodec.export.tensorrt.options import FLAGS
from dmcodec.export.tensorrt.rewrite import rewritten
from dmcodec.runtime.tensorrt.driver import Gpu, probe_gpu
from dmcodec.runtime.tensorrt.engine_store import EngineStore, record_path
from dmcodec.runtime.tensorrt.library import TENSORRT, TENSORRT_RTX, Library
from dmcodec.runtime.tensorrt.profiles import FixedShape, Profile, ShapeRange, ShapeRequest

REQUEST = ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None)


def library(version: str = "10.16.1.11", gpu: Gpu | None = GPU, rtx: bool = False) -> Library:
    flavour = TENSORRT_RTX if rtx else TENSORRT
    return Library(fake_tensorrt(FakeDevice() if gpu else None, version, gpu, rtx), flavour)


def plan(bundle: Path, request: ShapeRequest = REQUEST, lib: Library | None = None, **more: Any) -> list[PlannedEngine]:
    options = more.pop("options", BuildOptions())
    return plan_engines(Bundle.open(bundle), lib or library(), more.pop("gpu", GPU), request, options, **more)


def build(bundle: Path, planned: list[PlannedEngine], lib: Library | None = None, **more: Any) -> list[BuildReport]:
    options = more.pop("options", BuildOptions())
    return build_engines(Bundle.open(bundle), lib or library(), more.pop("gpu", GPU), planned, options, **more)


# Profiles


def test_profiles_are_given_as_durations_and_batch_sizes(tiny_bundle: Path) -> None:
    assert ShapeRequest.parse(None, None, None).range == ShapeRange((0.1, 5.0, 30.0), (1, 1, 16))
    request = ShapeRequest.parse("100ms:1.5s:10s", "2", "1s,250msx4, 1s")
    assert request.range == ShapeRange((0.1, 1.5, 10.0), (2, 2, 2))
    assert request.fixed_shapes == (FixedShape(1.0), FixedShape(0.25, 4))
    manifest = Bundle.open(tiny_bundle).manifest
    profiles = request.profiles("encoder", manifest.graphs["encoder"], manifest.config)
    assert [str(profile) for profile in profiles] == [
        "1s (waveform 1x1x16000, lengths 1)",
        "0.25sx4 (waveform 4x1x4000, lengths 4)",
        "0.1s:1.5s:10s x 2:2:2 (waveform 2x1x1600:2x1x24000:2x1x160000, lengths 2)",
    ]
    assert [profile.fixed for profile in profiles] == [True, True, False]
    dequantizer = request.profiles("dequantizer", manifest.graphs["dequantizer"], manifest.config)[0]
    assert str(dequantizer) == "1s (codes 1x1x50:8x1x50:8x1x50, first_level scalar)"
    assert ShapeRequest.parse(None, None, "1s").range is None


def test_streaming_graphs_take_pushes_from_one_frame_up(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    for request in (ShapeRequest.parse(None, None, "1s,15sx2"), ShapeRequest.parse("1s:2s:15s", "2", None)):
        profiles = request.profiles("decoder_recurrent", manifest.graphs["decoder_recurrent"], manifest.config)
        assert [profile.name for profile in profiles] == ["chunk", "long", "push of 1", "push of 5"]
        assert [profile.inputs["latents"].min[-1] for profile in profiles] == [7, 7, 7, 11]
        batch, _, frames = profiles[1].inputs["latents"].max
        assert batch == 2
        assert frames >= 15 * 50 + 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("5", None, None), "'5' is not a duration"),
        (("5s:1s:30s", None, None), "ascending"),
        (("1s:2s", None, None), "smallest:usual:largest"),
        (("0s", None, None), "above 0"),
        (("601s", None, None), "up to 600 s"),
        ((None, "0", None), "not a batch size"),
        ((None, "1:x:3", None), "not a batch size"),
        ((None, "3:2:4", None), "ascending"),
        ((None, None, "1s,,2s"), "'' is not a duration"),
        ((None, None, "1sx"), None),
        ((None, None, "1sx999"), "not a batch size"),
        ((None, None, ""), "not a duration"),
    ],
)
def test_malformed_profiles_are_refused(arguments: tuple[Any, ...], said: str | None) -> None:
    if said is None:
        assert ShapeRequest.parse(*arguments).fixed_shapes == (FixedShape(1.0),)
        return
    with pytest.raises(ArgumentError, match=said):
        ShapeRequest.parse(*arguments)


@given(
    st.lists(st.floats(0.001, 600).map(lambda value: round(value, 3)), min_size=3, max_size=3).map(sorted),
    st.lists(st.integers(1, 256), min_size=3, max_size=3).map(sorted),
)
def test_profiles_are_ordered_and_round_trip(tiny_bundle: Path, durations: list[float], batches: list[int]) -> None:
    manifest = read_manifest(tiny_bundle)
    text = ":".join(f"{value}s" for value in durations), ":".join(map(str, batches))
    request = ShapeRequest.parse(*text, None)
    for name, spec in manifest.graphs.items():
        for profile in request.profiles(name, spec, manifest.config):
            assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile
            for shapes in profile.inputs.values():
                assert all(1 <= a <= b <= c for a, b, c in zip(shapes.min, shapes.opt, shapes.max, strict=True))


# Keys and reuse


def test_engines_are_built_once(copy_of_tiny_bundle: Path) -> None:
    planned = plan(copy_of_tiny_bundle)
    assert [(item.build, item.reason) for item in planned] == [(True, "not built yet")] * 6
    reports = build(copy_of_tiny_bundle, planned)
    assert all(report.build_s is not None and report.path.is_file() for report in reports)
    again = plan(copy_of_tiny_bundle)
    assert [(item.build, item.reason) for item in again] == [(False, "up to date")] * 6
    assert all(report.build_s is None for report in build(copy_of_tiny_bundle, again))
    assert all(item.build and item.reason == "--rebuild" for item in plan(copy_of_tiny_bundle, rebuild=True))
    [encoder] = plan(copy_of_tiny_bundle, graphs=["encoder"])
    assert (encoder.key.graph, encoder.build) == ("encoder", False)


def test_everything_an_engine_depends_on_is_in_its_key(tiny_bundle: Path, copy_of_tiny_bundle: Path) -> None:
    base = plan(tiny_bundle)[0].key
    others = [
        plan(tiny_bundle, ShapeRequest.parse("0.1s:1s:3s", "1:1:2", None))[0].key,
        plan(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", "1s"))[0].key,
        plan(tiny_bundle, lib=library("11.4.0.106"))[0].key,
        plan(tiny_bundle, lib=library("1.7.1", rtx=True))[0].key,
        plan(tiny_bundle, gpu=Gpu("Other", "9.0", (13, 0)))[0].key,
        plan(tiny_bundle, options=BuildOptions(tf32=True))[0].key,
        plan(tiny_bundle, options=BuildOptions(hardware_compatibility="ampere-plus"))[0].key,
        plan(tiny_bundle, options=BuildOptions(workspace_mb=1))[0].key,
        plan(tiny_bundle)[3].key,
    ]
    assert len({base.digest, *(key.digest for key in others)}) == 10
    assert plan(copy_of_tiny_bundle)[0].key == base  # the folder is not part of the key


def test_half_written_and_altered_engines_are_built_again(copy_of_tiny_bundle: Path) -> None:
    build(copy_of_tiny_bundle, plan(copy_of_tiny_bundle))
    files = [copy_of_tiny_bundle / "engines" / item.key.file for item in plan(copy_of_tiny_bundle)]
    record_path(files[0]).unlink()
    files[1].write_bytes(files[1].read_bytes()[:-1])
    record_path(files[2]).write_text("{}")
    files[3].unlink()
    content = bytearray(files[4].read_bytes())
    content[-1] ^= 1
    files[4].write_bytes(content)
    planned = plan(copy_of_tiny_bundle)
    assert [item.build for item in planned] == [True] * 5 + [False]
    said = ["cut short", "cut or altered", "not a valid record", "is missing", "altered"]
    assert all(word in item.reason for word, item in zip(said, planned, strict=False))
    build(copy_of_tiny_bundle, planned)
    assert not any(item.build for item in plan(copy_of_tiny_bundle))


def test_the_manifest_lists_what_was_built(copy_of_tiny_bundle: Path) -> None:
    before = json.loads((copy_of_tiny_bundle / "manifest.json").read_text())
    assert "engines" not in before
    build(copy_of_tiny_bundle, plan(copy_of_tiny_bundle, graphs=["encoder"]))
    build(copy_of_tiny_bundle, plan(copy_of_tiny_bundle, graphs=["decoder"]))
    engines = Bundle.open(copy_of_tiny_bundle).manifest.engines
    assert {facts["graph"] for facts in engines.values()} == {"encoder", "decoder"}
    for file, facts in engines.items():
        assert facts["size_bytes"] == (copy_of_tiny_bundle / "engines" / file).stat().st_size
        assert (facts["precision"], facts["flavour"], facts["architectures"]) == ("fp32", "tensorrt", ["sm_86"])
        assert facts["profiles"][0]["inputs"]
    # Older readers ignore engines, and the manifest's digest is valid for them too.
    after = json.loads((copy_of_tiny_bundle / "manifest.json").read_text())
    assert {name: value for name, value in after.items() if name not in ("engines", "sha256")} == {
        name: value for name, value in before.items() if name != "sha256"
    }
    after["engines"] = {}
    (copy_of_tiny_bundle / "manifest.json").write_text(json.dumps(after))
    with pytest.raises(BundleError, match="altered"):
        Bundle.open(copy_of_tiny_bundle)


def test_another_folder_leaves_the_bundle_alone(copy_of_tiny_bundle: Path, tmp_path: Path) -> None:
    before = (copy_of_tiny_bundle / "manifest.json").read_bytes()
    planned = plan(copy_of_tiny_bundle, engine_cache=tmp_path / "cache")
    build(copy_of_tiny_bundle, planned, engine_cache=tmp_path / "cache")
    assert len(EngineStore(tmp_path / "cache").records()[0]) == 6
    assert (copy_of_tiny_bundle / "manifest.json").read_bytes() == before
    assert not (copy_of_tiny_bundle / "engines").exists()


def test_a_folder_that_cannot_be_written_is_named(copy_of_tiny_bundle: Path) -> None:
    (copy_of_tiny_bundle / "engines").write_text("a file")
    planned = plan(copy_of_tiny_bundle)
    with pytest.raises(OutputError, match=r"engines.*can't be written"):
        build(copy_of_tiny_bundle, planned)
    with pytest.raises(OutputError, match="--engine-cache DIR"):
        EngineStore(copy_of_tiny_bundle / "engines").store(planned[0].key, b"plan", {})


def test_a_bundle_that_is_up_to_date_is_not_written(copy_of_tiny_bundle: Path) -> None:
    build(copy_of_tiny_bundle, plan(copy_of_tiny_bundle))
    (copy_of_tiny_bundle / "engines" / "manifest.lock").unlink()
    build(copy_of_tiny_bundle, plan(copy_of_tiny_bundle))
    assert not (copy_of_tiny_bundle / "engines" / "manifest.lock").exists()


# Options, precision, failures


@pytest.mark.parametrize(
    ("rtx", "gpu", "options", "error", "said"),
    [
        (False, None, {}, GpuError, "needs an NVIDIA GPU, and there is none; run this on the machine that will run"),
        (False, GPU, {"compute_capabilities": ("8.6",)}, ArgumentError, "builds for the GPU of this machine only"),
        (True, GPU, {"version_compatible": True}, ArgumentError, "no lean runtime"),
        (True, GPU, {"hardware_compatibility": "ampere-plus"}, ArgumentError, "--compute-capability"),
        (True, None, {"refit": True}, GpuError, "--refit: .* needs an NVIDIA GPU"),
        (True, None, {"strip_plan": True}, GpuError, "--strip-plan: .* needs an NVIDIA GPU"),
        (True, None, {"compute_capabilities": ("9.0",)}, ArgumentError, r"9\.0: .* knows 8\.0, 8\.6"),
    ],
)
def test_options_that_are_not_supported_are_refused(
    rtx: bool, gpu: Gpu | None, options: dict[str, Any], error: type[Exception], said: str, tiny_bundle: Path
) -> None:
    with pytest.raises(error, match=said):
        plan(tiny_bundle, lib=library("1.7.1" if rtx else "11.4.0", gpu, rtx), gpu=gpu, options=BuildOptions(**options))


def test_options_that_are_out_of_range_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ArgumentError, match="none, ampere-plus"):
        BuildOptions(hardware_compatibility="all")
    with pytest.raises(ArgumentError, match="--workspace-mb"):
        BuildOptions(workspace_mb=0)
    with pytest.raises(ArgumentError, match="no graph vocoder for TensorRT; there are encoder"):
        plan(tiny_bundle, graphs=["vocoder"])
    with pytest.raises(ArgumentError, match="no graph decoder_upsampler_steps for TensorRT"):
        plan(tiny_bundle, graphs=["decoder_upsampler_steps"])


def test_options_reach_the_builder(tiny_bundle: Path, tmp_path: Path) -> None:
    options = BuildOptions(version_compatible=True, hardware_compatibility="ampere-plus", refit=True, workspace_mb=64)
    planned = plan(tiny_bundle, options=options, graphs=["quantizer"])
    build(tiny_bundle, planned, options=options, engine_cache=tmp_path)
    config = fakes.Builder.last_config
    assert config.set_flags == {"VERSION_COMPATIBLE", "REFIT"}  # and TF32, the library's default, is not
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert config.workspace == 64 << 20
    assert config.profiling_verbosity.name == "DETAILED"


def test_an_engine_of_another_precision_is_kept_with_a_warning(tiny_bundle: Path, tmp_path: Path) -> None:
    lib = library()
    lib.module.half = True  # a builder that ignores the precision, or an inspector that calls types otherwise
    said = r"quantizer-\w+\.engine: asked for fp32, but .* 1 fp16 .*engine inspector.*dmcodec verify"
    with pytest.warns(EngineWarning, match=said):
        [report] = build(tiny_bundle, plan(tiny_bundle, lib=lib, graphs=["quantizer"]), lib, engine_cache=tmp_path)
    facts = EngineStore(tmp_path).records()[0][0].facts
    assert facts == report.record.facts
    assert facts["precision"] == "fp16"
    assert "asked for fp32" in facts["precision_problem"]
    lib.module.half = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned = plan(tiny_bundle, lib=lib, graphs=["quantizer"], rebuild=True)
        [report] = build(tiny_bundle, planned, lib, engine_cache=tmp_path)
    assert (report.record.facts["precision"], report.record.facts["precision_problem"]) == ("fp32", None)


def test_a_failed_build_carries_the_loggers_lines(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = rewritten(tiny_bundle / "quantizer.onnx")
    spec = read_manifest(tiny_bundle).graphs["quantizer"]
    profiles = REQUEST.profiles("quantizer", spec, CodecConfig())
    with pytest.raises(EngineBuildError, match=r"quantizer: the build failed \(no GPU to build for\)"):
        build_plan(library(gpu=None), "quantizer", model, profiles, BuildOptions())
    with pytest.raises(EngineBuildError, match=r"can't parse this graph \(node Elu_1 \(Elu\): not a graph\)"):
        build_plan(library(), "quantizer", b"", profiles, BuildOptions())
    monkeypatch.setitem(FLAGS, "tf32", "FP16")
    with pytest.raises(ArgumentError, match=r"has no BuilderFlag\.FP16; it knows REFIT"):
        build_plan(library(), "quantizer", model, profiles, BuildOptions(tf32=True))


def test_progress_is_reported_and_an_interrupt_ends_the_build(tiny_bundle: Path, tmp_path: Path) -> None:
    calls = []
    planned = plan(tiny_bundle, graphs=["quantizer"])
    build(tiny_bundle, planned, engine_cache=tmp_path / "a", progress=lambda *values: calls.append(values))
    assert calls == [("quantizer: Building", done, 2) for done in (0, 1, 2, 2)]

    def interrupt(_phase: str, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tiny_bundle, planned, engine_cache=tmp_path / "b", progress=interrupt)
    assert not list((tmp_path / "b").glob("*.engine"))


# The timing cache


def test_the_timing_cache_is_kept_and_merged(tiny_bundle: Path, tmp_path: Path) -> None:
    lib = library()
    timing = TimingCache(lib, tmp_path, GPU)
    build(tiny_bundle, plan(tiny_bundle, graphs=["quantizer"]), lib, engine_cache=tmp_path)
    assert timing.path.name == "timing-10.16.1.11-sm_86.cache"
    first = timing.path.read_bytes()
    timing.merge(b"others;")
    assert timing.path.read_bytes() == first + b"others;"
    timing.path.write_bytes(b"damaged")
    timing.merge(b"new;")
    assert timing.path.read_bytes() == b"new;"
    assert TimingCache(library("1.7.1", rtx=True), tmp_path, GPU).load() is None


HOLD = """
import sys, time
from pathlib import Path
from dmcodec.files import locked
out = Path(sys.argv[2])
with locked(Path(sys.argv[1])):
    text = out.read_text() if out.exists() else ""
    time.sleep(0.05)
    out.write_text(text + "x")
"""


def test_the_lock_holds_between_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock"), str(tmp_path / "out")]
    workers = [subprocess.Popen(command) for _ in range(5)]
    assert [worker.wait(60) for worker in workers] == [0] * 5
    assert (tmp_path / "out").read_text() == "x" * 5


# What is installed


@pytest.mark.parametrize("version", ["9.3.0", "10.12.0.36", "12.0.0", "unknown"])
def test_versions_that_are_not_known_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmcodec.runtime.tensorrt.library._import", lambda name: fake_tensorrt(version=version))
    with pytest.raises(MissingDependencyError, match=r"tensorrt .*: dmcodec knows 10\.13 to 11\.x"):
        Library.load(TENSORRT)


def test_a_broken_installation_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr("dmcodec.runtime.tensorrt.library._import", fail)
    with pytest.raises(MissingDependencyError, match=r"libnvinfer.*dmcodec\[trt\].*; or tensorrt-rtx.*\[trt-rtx\]"):
        Library.find()
    with pytest.raises(ArgumentError, match="use one of tensorrt, tensorrt-rtx"):
        Library.find("lean")


def test_a_machine_without_a_driver_is_an_error() -> None:
    try:
        gpu = probe_gpu()
    except GpuError as error:
        assert str(error)  # noqa: PT017 - either way is right, on its own machine
    else:
        assert gpu.architecture.startswith("sm_")
