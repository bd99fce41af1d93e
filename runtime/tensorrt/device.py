"""The interface to a GPU: memory, streams, events, copies and CUDA graphs, by addresses and handles.

`CudaDevice` implements it with NVIDIA's cuda-bindings, without torch or CuPy. It was written against the documented API
and was not yet run on a GPU.

Calls on a stream return before the work is done. Device memory, and the host memory of a copy, must stay allocated
until then.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import GpuError, MissingDependencyError

from .driver import Gpu, probe_gpu

PinnedMemory = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows in device memory.

    Attributes:
        address: of the first row.
        pitch_bytes: from the beginning of a row to that of the next.
    """

    address: int
    pitch_bytes: int


class Device(Protocol):
    """One GPU. Thread-safe, but each stream belongs to one thread at a time.

    All methods raise GpuError where a call fails; `allocate` also where no memory is left.
    """

    @property
    def gpu(self) -> Gpu:
        """Description of the GPU."""

    @property
    def index(self) -> int:
        """Number of the GPU among those that the process sees."""

    def current(self) -> AbstractContextManager[None]:
        """Make it the calling thread's device in a `with` block, around all other calls; the one before comes back."""

    def free_bytes(self) -> int:
        """Return the device memory that no process uses."""

    def allocate(self, size_bytes: int) -> int:
        """Allocate device memory, aligned to 256 bytes, and return its address. Every stream may use it at once."""

    def free(self, address: int) -> None:
        """Free device memory. No work may be using it."""

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory:
        """Allocate page-locked host memory: bytes [size_bytes]."""

    def free_pinned(self, memory: PinnedMemory) -> None:
        """Free pinned memory."""

    def create_stream(self) -> int:
        """Create a stream that does not wait for the default one, and return its handle."""

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream on which no work is left."""

    def synchronize(self, stream: int) -> None:
        """Wait until all work on the stream is done."""

    def create_event(self) -> int:
        """Create an event and return its handle. It counts as done until it is recorded."""

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""

    def record(self, event: int, stream: int) -> None:
        """Record the event: it is done when all work that is now on the stream is done."""

    def wait(self, stream: int, event: int) -> None:
        """Make later work on the stream wait for the event."""

    def synchronize_event(self, event: int) -> None:
        """Wait until the event is done."""

    def upload(self, address: int, memory: PinnedMemory, stream: int) -> None:
        """Copy pinned memory to the device."""

    def download(self, memory: PinnedMemory, address: int, stream: int) -> None:
        """Copy from the device to pinned memory."""

    def copy(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Copy within the device."""

    def copy_rows(self, target: Rows, source: Rows, row_bytes: int, rows: int, stream: int) -> None:
        """Copy `rows` rows of `row_bytes` bytes within the device."""

    def clear(self, address: int, size_bytes: int, stream: int) -> None:
        """Fill memory with zeros."""

    def begin_capture(self, stream: int) -> None:
        """Begin the capture of a CUDA graph: later work on the stream is recorded and not run."""

    def end_capture(self, stream: int) -> Any:
        """End the capture and return the executable graph."""

    def launch(self, graph: Any, stream: int) -> None:
        """Enqueue a captured graph on a stream."""

    def destroy_graph(self, graph: Any) -> None:
        """Destroy a captured graph."""


class CudaDevice:
    """The GPU `index` through cuda-bindings; see `Device`.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
        GpuError: no driver, no GPU, or a driver too old for the CUDA runtime of cuda-bindings.
    """

    def __init__(self, index: int = 0) -> None:
        self._gpu = probe_gpu(index)  # before anything else touches CUDA
        self._index = index
        self._cuda = _import_runtime()
        version = int(self._call("cudaRuntimeGetVersion"))
        if self._gpu.driver_cuda[0] < version // 1000:
            have = ".".join(map(str, self._gpu.driver_cuda))
            raise GpuError(
                f"the NVIDIA driver supports CUDA up to {have}, and cuda-bindings is for CUDA {version // 1000}; "
                "update the driver, or install the cuda-bindings of its CUDA version"
            )

    @property
    def gpu(self) -> Gpu:
        """See `Device`."""
        return self._gpu

    @property
    def index(self) -> int:
        """See `Device`."""
        return self._index

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """See `Device`."""
        before = int(self._call("cudaGetDevice"))
        if before == self._index:
            yield
            return
        self._call("cudaSetDevice", self._index)
        try:
            yield
        finally:
            self._call("cudaSetDevice", before)

    def free_bytes(self) -> int:
        """See `Device`."""
        return int(self._call("cudaMemGetInfo")[0])

    # Plain allocations, which the pools of `resources` keep: the process's default memory pool, which the application
    # and other libraries use too, stays as it is.
    def allocate(self, size_bytes: int) -> int:
        """See `Device`."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """See `Device`."""
        self._call("cudaFree", address)

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory:
        """See `Device`."""
        address = int(self._call("cudaHostAlloc", size_bytes, self._cuda.cudaHostAllocDefault))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def free_pinned(self, memory: PinnedMemory) -> None:
        """See `Device`."""
        self._call("cudaFreeHost", memory.ctypes.data)

    def create_stream(self) -> int:
        """See `Device`."""
        return int(self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        """See `Device`."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """See `Device`."""
        self._call("cudaStreamSynchronize", stream)

    def create_event(self) -> int:
        """See `Device`."""
        return int(self._call("cudaEventCreateWithFlags", self._cuda.cudaEventDisableTiming))

    def destroy_event(self, event: int) -> None:
        """See `Device`."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """See `Device`."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """See `Device`."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """See `Device`."""
        self._call("cudaEventSynchronize", event)

    def upload(self, address: int, memory: PinnedMemory, stream: int) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, memory.ctypes.data, memory.nbytes, kind, stream)

    def download(self, memory: PinnedMemory, address: int, stream: int) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", memory.ctypes.data, address, memory.nbytes, kind, stream)

    def copy(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def copy_rows(self, target: Rows, source: Rows, row_bytes: int, rows: int, stream: int) -> None:
        """See `Device`."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        places = target.address, target.pitch_bytes, source.address, source.pitch_bytes
        self._call("cudaMemcpy2DAsync", *places, row_bytes, rows, kind, stream)

    def clear(self, address: int, size_bytes: int, stream: int) -> None:
        """See `Device`."""
        self._call("cudaMemsetAsync", address, 0, size_bytes, stream)

    def begin_capture(self, stream: int) -> None:
        """See `Device`."""
        # Thread-local, so that other threads can still allocate.
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> Any:
        """See `Device`."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:
        """See `Device`."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        """See `Device`."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        code, *results = getattr(self._cuda, name)(*arguments)
        if code != self._cuda.cudaError_t.cudaSuccess:
            self._cuda.cudaGetLastError()  # else the next call reports it again
            if code == self._cuda.cudaError_t.cudaErrorMemoryAllocation:
                size = f" for {arguments[0] / 1e6:.1f} MB more" if name in ("cudaMalloc", "cudaHostAlloc") else ""
                raise GpuError(
                    f"{self._gpu.name}: no memory left{size}; use shorter clips, smaller batches or fewer threads"
                )
            reason = self._cuda.cudaGetErrorString(code)[1]
            text = reason.decode() if isinstance(reason, bytes) else str(reason)
            raise GpuError(f"{self._gpu.name}: {name} failed ({text})")
        return results[0] if len(results) == 1 else results


def _import_runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingDependencyError(
            f'cuda-bindings can\'t be imported ({error}); run `pip install "dmcodec[trt]"` or "dmcodec[trt-rtx]"'
        ) from None
    return runtime
