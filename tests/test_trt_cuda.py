"""The real device class: on a stub of cuda-bindings whose calls succeed, and on the real one without a driver."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.codec import clips, same
from fakes.cuda_runtime import ARGUMENTS, CudaRuntime
from fakes.device import GPU, FakeDevice
from fakes.library import fake_tensorrt

from dmcodec.bundle import Bundle
from dmcodec.errors import GpuError
from dmcodec.runtime import Codec
from dmcodec.runtime.tensorrt import device as device_module
from dmcodec.runtime.tensorrt import driver as driver_module
from dmcodec.runtime.tensorrt.backend import TensorrtBackend
from dmcodec.runtime.tensorrt.device import CudaDevice, Rows
from dmcodec.runtime.tensorrt.driver import gpu_or_none
from dmcodec.runtime.tensorrt.library import TENSORRT, Library


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> tuple[CudaRuntime, FakeDevice]:
    """A stub in place of cuda-bindings, and the simulated GPU behind it."""
    fake = FakeDevice(index=2)
    runtime = CudaRuntime(fake)
    monkeypatch.setattr(device_module, "probe_gpu", lambda _index: GPU)
    monkeypatch.setattr(device_module, "_import_runtime", lambda: runtime)
    return runtime, fake


def test_a_codec_runs_on_the_device_class(
    stub: tuple[CudaRuntime, FakeDevice], tiny_bundle: Path, fixed_shape_engines: Path, tiny_codec: Codec
) -> None:
    runtime, fake = stub
    bundle, library = Bundle.open(tiny_bundle), Library(fake_tensorrt(fake), TENSORRT)
    with Codec(bundle, TensorrtBackend(bundle, fixed_shape_engines, True, CudaDevice(2), library)) as codec:
        same(codec, tiny_codec, clips(8000))
        same(codec, tiny_codec, clips(7000, 30000))
        tokens = codec.encode(clips(16000)[0], 16000)
        stream = codec.stream_decoder()
        audio = [stream.push(tokens.codes[:, first : first + 1]) for first in range(tokens.num_frames)]
        np.testing.assert_allclose(np.concatenate([*audio, stream.finish()]), tiny_codec.decode(tokens), atol=2e-5)
        assert isinstance(codec.backend, TensorrtBackend)
        resources = codec.backend.resources
        with resources.lease_stream() as leased:
            block = resources.memory.acquire(8, leased.handle)
            resources.device.clear(block.memory, 8, leased.handle)
            block.record_use(leased.handle)
            other = resources.device.create_stream()
            block.make_wait(other)  # the codec does so only where calls of its threads overlap
            resources.device.synchronize(other)
            resources.device.destroy_stream(other)
            leased.release([block])
        del resources
    del stream
    assert fake.leaks() == {}
    assert fake.current_index == 0  # the thread's own
    never = {"cudaDriverGetVersion", "cudaGetLastError", "cudaGetErrorString"}
    assert runtime.calls == set(ARGUMENTS) - never


def test_what_fails_is_one_error(stub: tuple[CudaRuntime, FakeDevice]) -> None:
    runtime, fake = stub
    device = CudaDevice(2)
    fake._left = 1000
    with pytest.raises(GpuError, match=r"Fake GPU: no memory left for 2\.0 MB more; use shorter clips"):
        device.allocate(2_000_000)
    with pytest.raises(GpuError, match=r"Fake GPU: cudaStreamEndCapture failed \(invalid argument\)"):
        device.end_capture(device.create_stream())
    assert {"cudaGetLastError", "cudaGetErrorString"} <= runtime.calls


def test_the_stub_takes_the_arguments_of_cuda_bindings() -> None:
    """The docstring of a binding begins with its signature."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    for name, count in ARGUMENTS.items():
        signature = re.match(rf"{name}\((.*?)\)", str(inspect.getdoc(getattr(runtime, name))), re.DOTALL)
        assert signature is not None, name
        arguments = [text for text in signature[1].split(",") if text.strip()]
        assert len(arguments) == count, (name, signature[0])


@pytest.mark.skipif(gpu_or_none() is not None, reason="a machine without a driver answers every call with a code")
def test_cuda_bindings_take_what_the_device_gives_them() -> None:
    """A wrong name or type would raise something other than the GpuError of a missing driver."""
    device = CudaDevice.__new__(CudaDevice)
    device._cuda, device._gpu, device._index = pytest.importorskip("cuda.bindings.runtime"), GPU, 0
    host = np.zeros(8, np.uint8)

    def make_current() -> None:
        with device.current():
            pass

    calls: list[Callable[[], Any]] = [
        make_current,
        device.free_bytes,
        device.create_stream,
        lambda: device.destroy_stream(8),
        lambda: device.allocate(8),
        lambda: device.free(256),
        lambda: device.allocate_pinned(8),
        lambda: device.upload(0, host, 0),
        lambda: device.download(host, 0, 0),
        lambda: device.copy(0, 0, 8, 0),
        lambda: device.copy_rows(Rows(0, 8), Rows(0, 8), 8, 1, 0),
        lambda: device.clear(0, 8, 0),
        lambda: device.synchronize(0),
        lambda: device.begin_capture(0),
        lambda: device.end_capture(0),
    ]
    for call in calls:
        with pytest.raises(GpuError):
            call()


class Driver:
    """The driver's library with one GPU: what it is asked is written to the arguments."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        values = {"cuDeviceGetCount": 1, "cuDriverGetVersion": 13000, "cuDeviceGetAttribute": 8, "cuMemGetInfo_v2": 123}

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in values:
                arguments[0]._obj.value = values[name]
            return 0

        return call


def test_the_driver_tells_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(driver_module, "_load_driver", lambda: driver)
    assert driver_module.free_bytes() == 123
    order = ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent_v2", "cuMemGetInfo_v2"]
    assert driver.calls[-6:] == [*order, "cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]
    with pytest.raises(GpuError, match="no GPU 1"):
        driver_module.free_bytes(1)
