"""What the runner asks of a GPU: memory, streams, events, copies and captured graphs; by addresses and handles.

Calls on a stream return before the work is done; host memory of a copy, and device memory, must stay until it is.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import GpuError, MissingDependencyError

from .driver import Gpu, probe_gpu

# FOLDED: A GPU through NVIDIA's cuda-bindings: no torch, no CuPy. Written against the documented API; not yet run on a GPU.


PinnedMemory = NDArray[np.uint8]


class Device(Protocol):
    """One GPU. Safe to call from several threads; a stream is for one of them at a time.

    All methods raise GpuError where the device refuses, `allocate` also where its memory is used up.
    """

    @property
    def gpu(self) -> Gpu:
        """Which GPU it is."""

    def use(self) -> None:
        """Makes it the calling thread's device; needed once a thread before anything else."""

    def allocate(self, size_bytes: int) -> int:
        """Address of device memory, aligned to 256 bytes, that every stream may use at once."""

    def free(self, address: int) -> None:
        """Gives memory back; no work may be using it."""

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory:
        """Page-locked host memory: bytes [size_bytes]."""

    def free_pinned(self, memory: PinnedMemory) -> None:
        """Gives it back."""

    def create_stream(self) -> int:
        """A stream that doesn't wait for the default one."""

    def synchronize(self, stream: int) -> None:
        """Waits until all work on the stream is done."""

    def create_event(self) -> int:
        """An event; done until it is recorded."""

    def destroy_event(self, event: int) -> None:
        """Gives it back."""

    def record(self, event: int, stream: int) -> None:
        """The event is done when what is on the stream now is done."""

    def wait(self, stream: int, event: int) -> None:
        """What comes on the stream from now on starts when the event is done."""

    def synchronize_event(self, event: int) -> None:
        """Waits until the event is done."""

    def upload(self, address: int, memory: PinnedMemory, stream: int) -> None:
        """Copies pinned memory to the device."""

    def download(self, memory: PinnedMemory, address: int, stream: int) -> None:
        """Copies from the device to pinned memory."""

    def copy(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        """Copies within the device."""

    def begin_capture(self, stream: int) -> None:
        """What comes on the stream from now on is recorded instead of done."""

    def end_capture(self, stream: int) -> Any:
        """The recorded graph, ready to launch."""

    def launch(self, graph: Any, stream: int) -> None:
        """Puts a recorded graph on a stream."""

    def destroy_graph(self, graph: Any) -> None:
        """Gives it back."""


_KEEP_ALL = (1 << 64) - 1  # release threshold of the memory pool: freed memory stays with the process


class CudaDevice:
    """The GPU `index`; see `dmcodec.runtime.tensorrt.device.Device`.

    Raises:
        MissingDependencyError: cuda-bindings isn't installed.
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
                f"the NVIDIA driver runs CUDA up to {have}, and cuda-bindings here is for CUDA {version // 1000}; "
                "update the driver, or install the cuda-bindings of its CUDA version"
            )
        self.use()
        cuda = self._cuda
        pool = self._call("cudaDeviceGetDefaultMemPool", index)
        threshold = cuda.cudaMemPoolAttr.cudaMemPoolAttrReleaseThreshold
        self._call("cudaMemPoolSetAttribute", pool, threshold, _unsigned_64(_KEEP_ALL))
        self._setup = self.create_stream()

    @property
    def gpu(self) -> Gpu:
        """See `Device`."""
        return self._gpu

    def use(self) -> None:
        """See `Device`."""
        self._call("cudaSetDevice", self._index)

    def allocate(self, size_bytes: int) -> int:
        """See `Device`."""
        address = self._call("cudaMallocAsync", size_bytes, self._setup)
        self.synchronize(self._setup)  # from here on every stream may use it
        return int(address)

    def free(self, address: int) -> None:
        """See `Device`."""
        self._call("cudaFreeAsync", address, self._setup)

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

    def begin_capture(self, stream: int) -> None:
        """See `Device`."""
        # Thread-local: other threads may go on allocating meanwhile.
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
                size = f" for {arguments[0] / 1e6:.1f} MB more" if name in ("cudaMallocAsync", "cudaHostAlloc") else ""
                raise GpuError(
                    f"{self._gpu.name}: no memory left{size}; use shorter clips, smaller batches or fewer threads"
                )
            said = self._cuda.cudaGetErrorString(code)[1]
            text = said.decode() if isinstance(said, bytes) else str(said)
            raise GpuError(f"{self._gpu.name}: {name} failed ({text})")
        return results[0] if results else None


def _unsigned_64(value: int) -> Any:
    """The type that attributes of 64 bits are passed in; it lives beside the driver's functions."""
    from cuda.bindings import driver

    return driver.cuuint64_t(value)


def _import_runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingDependencyError(
            f'cuda-bindings cannot be imported ({error}); run `pip install "dmcodec[trt]"` or "dmcodec[trt-rtx]"'
        ) from None
    return runtime
