"""ONNX Runtime's plugin provider for TensorRT-RTX, as far as it goes without a driver."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.codec import clips, same
from fakes.onnxruntime import RTX, FakeRuntime, refused

from dmcodec.bundle import Bundle
from dmcodec.errors import GpuError, MissingDependencyError, ProviderError
from dmcodec.export.tensorrt.provider_graphs import write_provider_graphs
from dmcodec.runtime import Codec, nv_tensorrt_rtx, onnxruntime_backend
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.tensorrt.driver import gpu_or_none
from dmcodec.runtime.tensorrt.profiles import ShapeRequest


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with memory, for what asks the driver how large batches may be."""
    monkeypatch.setattr("dmcodec.runtime.pipeline.free_bytes", lambda index: 1 << 33, raising=False)


def use(monkeypatch: pytest.MonkeyPatch, runtime: FakeRuntime) -> None:
    monkeypatch.setattr(onnxruntime_backend, "import_onnxruntime", lambda: runtime)


class Plugin:
    """The module onnxruntime_ep_nv_tensorrt_rtx."""

    @staticmethod
    def get_ep_name() -> str:
        return RTX

    @staticmethod
    def get_library_path() -> str:
        return "/there/libonnxruntime_providers_nv_tensorrt_rtx.so"


class PluginRuntime(FakeRuntime):
    """An onnxruntime for the CPU that takes plugins."""

    __version__ = "1.32.0"

    def __init__(self, problem: str | None = None) -> None:
        super().__init__()
        self.problem, self.registered, self.chosen = problem, list[tuple[str, str]](), dict[str, Any]()
        runtime, real = self, self.real.SessionOptions

        class Options:
            def __init__(self) -> None:
                self.real = real()

            def add_provider_for_devices(self, devices: Any, options: dict[str, str]) -> None:
                assert refused(RTX, options) == []
                runtime.chosen = {"devices": devices, **options}
                self.plugin = True

            def __setattr__(self, name: str, value: Any) -> None:
                if name in ("real", "plugin"):
                    object.__setattr__(self, name, value)
                else:
                    setattr(self.real, name, value)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.real, name)

        self.SessionOptions = Options

    def get_available_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if self.problem:
            raise RuntimeError(self.problem)
        self.registered.append((name, path))

    def get_ep_devices(self) -> list[Any]:
        kind = type("Device", (), {"ep_name": RTX, "ep_vendor": "NVIDIA"})
        return [type("Device", (), {"ep_name": "CPUExecutionProvider"}), kind]

    def InferenceSession(  # noqa: N802
        self, path: str, options: Any = None, providers: Any = None, enable_fallback: int = 1
    ) -> Any:
        asked = providers if providers is not None else [RTX]
        session = super().InferenceSession(path, options.real, ["CPUExecutionProvider"], enable_fallback)
        session.asked = [(each, {}) for each in asked]
        return session


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> PluginRuntime:
    monkeypatch.setitem(sys.modules, nv_tensorrt_rtx.MODULE, Plugin)
    monkeypatch.setattr(nv_tensorrt_rtx, "probe_gpu", lambda index: None)
    runtime = PluginRuntime()
    use(monkeypatch, runtime)
    return runtime


def test_the_plugin_is_registered_once_and_runs_rewritten_graphs(
    plugin: PluginRuntime, copy_of_tiny_bundle: Path, tiny_codec: Codec
) -> None:
    write_provider_graphs(Bundle.open(copy_of_tiny_bundle), ShapeRequest())
    for _ in range(2):
        codec = Codec(Bundle.open(copy_of_tiny_bundle), OnnxRuntimeBackend("nv-tensorrt-rtx"))
        for waveforms in (clips(8000), clips(16000, 15999)):
            same(codec, tiny_codec, waveforms)
    assert plugin.registered == [(RTX, Plugin.get_library_path())]
    assert Path(plugin.chosen["nv_runtime_cache_path"]).is_dir()
    by_graph = {session.path.name.partition("-")[0]: session.get_providers()[0] for session in plugin.sessions}
    assert by_graph["encoder"] == RTX
    assert by_graph["quantizer.onnx"] == "CPUExecutionProvider"


def test_what_keeps_the_plugin_from_running_is_named(plugin: PluginRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProviderError, match="it supports 1 of the GPUs here, and GPU 2"):
        OnnxRuntimeBackend("nv-tensorrt-rtx", device_id=2)
    use(monkeypatch, PluginRuntime("[ONNXRuntimeError] : 1 : FAIL : CUDA driver is too old"))
    with pytest.raises(ProviderError, match=r"can't be loaded \(CUDA driver is too old\)"):
        OnnxRuntimeBackend("nv-tensorrt-rtx")
    use(monkeypatch, PluginRuntime("library already registered"))
    OnnxRuntimeBackend("nv-tensorrt-rtx")
    use(monkeypatch, FakeRuntime())  # older than 1.24
    with pytest.raises(MissingDependencyError, match=r"needs onnxruntime 1\.24"):
        OnnxRuntimeBackend("nv-tensorrt-rtx")
    monkeypatch.setitem(sys.modules, nv_tensorrt_rtx.MODULE, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "dmcodec\[rtx-plugin\]"'):
        OnnxRuntimeBackend("nv-tensorrt-rtx")


@pytest.mark.skipif(gpu_or_none() is not None, reason="this machine has a GPU")
def test_without_a_driver_the_plugin_says_so(plugin: PluginRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, nv_tensorrt_rtx.MODULE, Plugin)
    use(monkeypatch, PluginRuntime())
    with pytest.raises(GpuError, match="no NVIDIA driver"):
        OnnxRuntimeBackend("nv-tensorrt-rtx")
