# ruff: noqa: N801, N802, N815 - the names are those of the bindings
"""A stub of `cuda.bindings.runtime` 13.5 whose calls succeed, on the simulated GPU: same names and arguments."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from typing import Any

import numpy as np

from dmcodec.errors import GpuError
from dmcodec.runtime.tensorrt.device import Rows
from fakes.device import FakeDevice


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


# Arguments of each function, as in the docstrings of cuda-bindings 13.5.
ARGUMENTS = {
    "cudaDriverGetVersion": 0, "cudaRuntimeGetVersion": 0, "cudaGetDevice": 0, "cudaSetDevice": 1, "cudaMemGetInfo": 0,
    "cudaMalloc": 1, "cudaFree": 1, "cudaHostAlloc": 2, "cudaFreeHost": 1, "cudaStreamCreateWithFlags": 1,
    "cudaStreamDestroy": 1, "cudaStreamSynchronize": 1, "cudaStreamWaitEvent": 3, "cudaEventCreateWithFlags": 1,
    "cudaEventDestroy": 1, "cudaEventRecord": 2, "cudaEventSynchronize": 1, "cudaMemcpyAsync": 5,
    "cudaMemcpy2DAsync": 8, "cudaMemsetAsync": 4, "cudaStreamBeginCapture": 2, "cudaStreamEndCapture": 1,
    "cudaGraphInstantiate": 2, "cudaGraphDestroy": 1, "cudaGraphLaunch": 2, "cudaGraphExecDestroy": 1,
    "cudaGetLastError": 0, "cudaGetErrorString": 1,
}  # fmt: skip


class CudaRuntime:
    """The module. `calls` are the names of the functions that were called."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = cudaMemcpyKind
    cudaStreamCaptureMode = cudaStreamCaptureMode
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaEventDisableTiming = 2

    def __init__(self, device: FakeDevice) -> None:
        self.calls: set[str] = set()
        self._device = device
        self._pinned: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in ARGUMENTS:
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            assert len(arguments) == ARGUMENTS[name], f"{name} takes {ARGUMENTS[name]} arguments"
            self.calls.add(name)
            try:
                with self._used():
                    found = getattr(self, f"_{name}")(*arguments)
            except GpuError as error:
                memory = "memory" in str(error)
                return (cudaError_t.cudaErrorMemoryAllocation if memory else cudaError_t.cudaErrorInvalidValue, None)
            results = found if isinstance(found, tuple) else () if found is None else (found,)
            return (cudaError_t.cudaSuccess, *results)

        return call

    @contextlib.contextmanager
    def _used(self) -> Any:
        """A thread has a current device without setting one: the first."""
        self._device._current.set = True
        yield

    def _cudaRuntimeGetVersion(self) -> int:
        return 13000

    def _cudaGetDevice(self) -> int:
        return self._device.current_index

    def _cudaSetDevice(self, index: int) -> None:
        self._device._current.index = index

    def _cudaMemGetInfo(self) -> tuple[int, int]:
        return self._device.free_bytes(), 1 << 40

    def _cudaHostAlloc(self, size: int, flags: int) -> int:
        assert flags == 0
        memory = self._device.allocate_pinned(size)
        self._pinned[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def _cudaFreeHost(self, address: int) -> None:
        self._device.free_pinned(self._pinned.pop(address))

    def _cudaStreamCreateWithFlags(self, flags: int) -> int:
        assert flags == self.cudaStreamNonBlocking
        return self._device.create_stream()

    def _cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        assert flags == 0
        self._device.wait(stream, event)

    def _cudaEventCreateWithFlags(self, flags: int) -> int:
        assert flags == self.cudaEventDisableTiming
        return self._device.create_event()

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        if kind == cudaMemcpyKind.cudaMemcpyHostToDevice:
            self._device.upload(target, self._host(source, size), stream)
        elif kind == cudaMemcpyKind.cudaMemcpyDeviceToHost:
            self._device.download(self._host(target, size), source, stream)
        else:
            self._device.copy(target, source, size, stream)

    def _cudaMemcpy2DAsync(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, height: int, kind: int,
        stream: int,
    ) -> None:  # fmt: skip
        assert kind == cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._device.copy_rows(Rows(target, target_pitch), Rows(source, source_pitch), width, height, stream)

    def _cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> None:
        assert value == 0
        self._device.clear(address, size, stream)

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:
        assert mode == cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._device.begin_capture(stream)

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> int:
        assert flags == 0
        return graph

    def _cudaGraphDestroy(self, graph: int) -> None:
        """Destroy the graph, of which the executable graph is a copy."""

    def _cudaGetLastError(self) -> None:
        return None

    def _cudaGetErrorString(self, _code: int) -> bytes:
        return b"invalid argument"

    def _host(self, address: int, size: int) -> np.ndarray[Any, Any]:
        memory = self._pinned[address]
        return memory[:size]


def _delegate(name: str, method: str) -> None:
    def call(self: CudaRuntime, *arguments: Any) -> Any:
        return getattr(self._device, method)(*arguments)

    setattr(CudaRuntime, f"_{name}", call)


_SAME: dict[str, str] = {
    "cudaMalloc": "allocate", "cudaFree": "free", "cudaStreamDestroy": "destroy_stream",
    "cudaStreamSynchronize": "synchronize", "cudaEventDestroy": "destroy_event", "cudaEventRecord": "record",
    "cudaEventSynchronize": "synchronize_event", "cudaStreamEndCapture": "end_capture", "cudaGraphLaunch": "launch",
    "cudaGraphExecDestroy": "destroy_graph",
}  # fmt: skip
for _name, _method in _SAME.items():
    _delegate(_name, _method)

Function = Callable[..., tuple[Any, ...]]
