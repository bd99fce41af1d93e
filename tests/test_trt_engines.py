"""TensorRT engines that cannot run here are refused with the reason."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.codec import build, load
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt

from dmcodec.bundle import GRAPH_NAMES, Bundle
from dmcodec.errors import ArgumentError, EngineError
from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
from dmcodec.runtime import Codec
from dmcodec.runtime.tensorrt.backend import TensorrtBackend, runs_on
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.engine_store import record_path
from dmcodec.runtime.tensorrt.library import TENSORRT, TENSORRT_RTX, Library
from dmcodec.runtime.tensorrt.profiles import ShapeRequest


def alter(folder: Path, change: Callable[[Path], None]) -> None:
    for path in folder.glob("encoder-*.engine"):
        change(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "cut or altered after the build"),
        (lambda path: record_path(path).unlink(), "a build of it was cut short"),
        (lambda path: record_path(path).write_text("{"), "not a valid record"),
        (lambda path: record_path(path).write_text("[]"), "not a valid record"),
        (
            lambda path: record_path(path).write_text(record_path(path).read_text().replace("sm_86", "sm_90")),
            "altered after the build",
        ),
    ],
)
def test_damaged_engines_are_refused(
    change: Callable[[Path], None], said: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None), tmp_path)
    alter(tmp_path, change)
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(EngineError, match=f"(?s)encoder: no engine in .* can run here .*{said}.*dmcodec export"):
        codec.load_graphs("encoder")
    codec.load_graphs("decoder")


def test_a_plan_of_other_bytes_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None), tmp_path)

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    alter(tmp_path, flip)
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(EngineError, match=r"encoder-\w+.engine: was altered or cut"):
        codec.load_graphs("encoder")


def test_engines_of_another_gpu_version_or_flavour_are_refused(tiny_bundle: Path, ranged_engines: Path) -> None:
    other = FakeDevice(dataclasses.replace(GPU, name="Other GPU", compute_capability="9.0"))
    codec, _ = load(tiny_bundle, ranged_engines, other)
    with pytest.raises(EngineError, match=r"is for sm_86, this GPU is Other GPU \(sm_90\)"):
        codec.load_graphs("encoder")
    codec, _ = load(tiny_bundle, ranged_engines, version="11.4.0.106")
    with pytest.raises(EngineError, match=r"is of version 10\.16\.1\.11, installed is 11\.4\.0\.106"):
        codec.load_graphs("encoder")
    codec, _ = load(tiny_bundle, ranged_engines, version="1.7.1.116", rtx=True)
    with pytest.raises(EngineError, match=r"is for tensorrt, in use is tensorrt-rtx"):
        codec.load_graphs("encoder")


def test_compatible_engines_run_on_later_versions_and_other_gpus(
    tiny_bundle: Path, tmp_path: Path, tiny_codec: Codec
) -> None:
    assert runs_on(("sm_80",), "ampere-plus", Gpu("", "9.0", (13, 0)))
    assert not runs_on(("sm_80",), "ampere-plus", Gpu("", "7.5", (13, 0)))
    assert runs_on(("generic",), "none", Gpu("", "7.5", (13, 0)))
    build(tiny_bundle, ShapeRequest.parse("1s", "1", None), tmp_path, BuildOptions(version_compatible=True))
    codec, _ = load(tiny_bundle, tmp_path, version="10.13.0.1")
    with pytest.raises(EngineError, match="is of version"):
        codec.load_graphs("encoder")


def test_an_engine_that_the_library_refuses_is_an_error_with_the_reason(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("1s", "1", None), tmp_path, rtx=True, version="1.7.1.116")
    device = FakeDevice()
    library = Library(fake_tensorrt(device, "1.7.1.116", rtx=True), TENSORRT_RTX)
    library.module.unsupported_gpu = True
    opened = Bundle.open(tiny_bundle)
    codec = Codec(opened, TensorrtBackend(opened, tmp_path, device=device, library=library))
    with pytest.raises(EngineError, match="can't run this engine here: this GPU's compute capability isn't supported"):
        codec.load_graphs("encoder")


def test_a_bundle_altered_after_the_build_is_refused(copy_of_tiny_bundle: Path) -> None:
    library = Library(fake_tensorrt(FakeDevice()), TENSORRT)
    opened, options = Bundle.open(copy_of_tiny_bundle), BuildOptions()
    planned = plan_engines(opened, library, GPU, ShapeRequest.parse("1s", "1", None), options)
    build_engines(opened, library, GPU, planned, options)
    engines = Bundle.open(copy_of_tiny_bundle).manifest.engines
    assert {facts["graph"] for facts in engines.values()} == set(GRAPH_NAMES)
    # Another engine and record of the same key, both complete: only the manifest shows it.
    [file] = [file for file, facts in engines.items() if facts["graph"] == "encoder"]
    path = copy_of_tiny_bundle / "engines" / file
    from dmcodec.runtime.tensorrt.engine_store import EngineStore

    store = EngineStore(path.parent)
    [record] = [record for record in store.records()[0] if record.key.file == file]
    store.store(record.key, b"another plan", record.facts)
    codec, _ = load(copy_of_tiny_bundle, path.parent)
    with pytest.raises(EngineError, match="is not the one that the bundle's manifest lists"):
        codec.load_graphs("encoder")
    # A graph that was exchanged: another hash in the manifest.
    spec = dataclasses.replace(opened.manifest.graphs["decoder"], sha256="0" * 64)
    with pytest.raises(EngineError, match="was built from another graph"):
        codec.backend.load(copy_of_tiny_bundle / "decoder.onnx", spec)


def test_engines_without_weights_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    build(tiny_bundle, ShapeRequest.parse("1s", "1", None), tmp_path, BuildOptions(refit=True, strip_plan=True))
    codec, _ = load(tiny_bundle, tmp_path)
    with pytest.raises(EngineError, match="was built without its weights"):
        codec.load_graphs("encoder")


def test_no_engines_or_no_gpu_is_one_error(tiny_bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(tiny_bundle)
    with pytest.raises(EngineError, match=r"no engines in .*run `dmcodec export --format trt"):
        TensorrtBackend(opened, tmp_path, device=FakeDevice())
    with pytest.raises(ArgumentError, match="no threads"):
        Codec.load(tiny_bundle, backend="tensorrt", threads=2)
    with pytest.raises(ArgumentError, match="engine_cache is for backend tensorrt"):
        Codec.load(tiny_bundle, engine_cache=tmp_path)


def test_records_round_trip(ranged_engines: Path) -> None:
    for path in ranged_engines.glob("*.engine"):
        record = json.loads(record_path(path).read_text())
        assert record["size_bytes"] == path.stat().st_size
        assert record["key"]["flavour"] == "tensorrt"
