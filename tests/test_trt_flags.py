"""What an engine is built with for the runtime, and whose lines of the library's log an error holds."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fakes import library as fakes
from fakes.codec import RATE, build, clips, load
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt

from dmcodec.bundle import Bundle, read_manifest
from dmcodec.errors import BackendError
from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
from dmcodec.runtime.tensorrt.library import TENSORRT, Library, Log
from dmcodec.runtime.tensorrt.profiles import PUSH_FRAMES, ShapeRequest

REQUEST = ShapeRequest.parse("0.1s:1s:2s", "1:1:2", None)
RTX: dict[str, Any] = {"rtx": True, "version": "1.7.1.116"}


@pytest.mark.parametrize(("arguments", "flags"), [(RTX, {"REQUIRE_USER_ALLOCATION"}), ({}, set())])
def test_engines_are_built_so_that_runs_can_be_captured(
    arguments: dict[str, Any], flags: set[str], tiny_bundle: Path, tmp_path: Path
) -> None:
    build(tiny_bundle, REQUEST, tmp_path, **arguments)
    assert fakes.Builder.last_built.set_flags == flags
    assert fakes.Builder.last_built.preview == {"RUNTIME_ACTIVATION_RESIZE_10_10"}


def test_engines_of_a_library_with_other_features_are_built_again(tiny_bundle: Path, tmp_path: Path) -> None:
    opened, options = Bundle.open(tiny_bundle), BuildOptions()

    def planned(library: Library) -> list[bool]:
        return [item.build for item in plan_engines(opened, library, GPU, REQUEST, options, engine_cache=tmp_path)]

    old = Library(fake_tensorrt(FakeDevice()), TENSORRT)
    del old.module.PreviewFeature
    build_engines(
        opened, old, GPU, plan_engines(opened, old, GPU, REQUEST, options, engine_cache=tmp_path), options, tmp_path
    )
    assert not any(planned(old))
    assert all(planned(Library(fake_tensorrt(FakeDevice()), TENSORRT)))


def test_the_graphs_of_a_stream_have_a_shape_for_each_usual_push(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    for name, axis in (("dequantizer", 0), ("decoder_recurrent", 6), ("decoder_upsampler", 7)):
        spec = manifest.graphs[name]
        for request in (REQUEST, ShapeRequest.parse(None, None, "1s")):
            fixed = [profile for profile in request.profiles(name, spec, manifest.config) if "push" in profile.name]
            assert [profile.fixed for profile in fixed] == [True] * len(PUSH_FRAMES)
            for profile, frames in zip(fixed, PUSH_FRAMES, strict=True):
                shape = profile.inputs[spec.inputs[0].name]
                assert shape.max[-1] - frames == axis or name == "decoder_upsampler"
                assert shape.min[1:] == shape.max[1:]


def test_lines_of_the_log_belong_to_the_thread_that_caused_them() -> None:
    log, both = Log(), threading.Barrier(2)

    def call(name: str) -> list[str]:
        with log.recording() as lines:
            both.wait()
            log.write("ERROR", f"failed in {name}")
            both.wait()
            if name == "a":  # a thread that the library started
                thread = threading.Thread(target=log.write, args=("ERROR", "of the library"))
                thread.start()
                thread.join()
            both.wait()
        return [line.text for line in lines]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(call, ["a", "b"]))
    assert found == [["failed in a", "of the library"], ["failed in b", "of the library"]]
    log.write("ERROR", "of nobody")


def test_errors_of_threads_hold_their_own_lines(tiny_bundle: Path, tmp_path: Path) -> None:
    """A shape that the profile refuses is named in the log; the other thread's error has none of it."""
    build(tiny_bundle, REQUEST, tmp_path)
    codec, _ = load(tiny_bundle, tmp_path)
    runner = codec.graphs._runner("encoder")
    engine = runner._executor._engines[0]  # type: ignore[attr-defined]
    both = threading.Barrier(2)

    def call(samples: int) -> str:
        with codec.backend.resources.lease_stream() as stream:  # type: ignore[attr-defined]
            context = engine.context()
            both.wait()
            with pytest.raises(BackendError) as caught:
                context.prepare(0, {"waveform": (1, 1, samples), "lengths": (1,)}, stream.handle)
        return str(caught.value)

    for _ in range(5):
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(call, [99_999, 88_888])
        assert "99999" in first
        assert "88888" not in first
        assert "88888" in second
        assert "99999" not in second


def test_runs_leave_the_filters_of_warnings_alone(
    tiny_bundle: Path, ranged_engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to the process: two threads that set and restore them leave a wrong one."""
    codec, _ = load(tiny_bundle, ranged_engines)
    codec.load_graphs("encoder", "quantizer")

    def refuse(*_arguments: Any, **_more: Any) -> Any:
        raise AssertionError("the filters of warnings were changed in a run")

    monkeypatch.setattr(warnings, "catch_warnings", refuse)
    codec.encode(clips(8000)[0], RATE)
