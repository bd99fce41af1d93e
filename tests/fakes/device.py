"""A simulated GPU: work on a stream runs only when a call waits for it, and misuse of memory raises FaultError."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import GpuError
from dmcodec.runtime.tensorrt.driver import Gpu

Operation = Callable[[], None]
GPU = Gpu("Fake GPU", "8.6", (13, 0))


class FaultError(AssertionError):
    """A misuse that on a GPU would crash, hang, or sometimes give wrong results."""


class _Marker:
    def __init__(self, stream: int) -> None:
        self.stream, self.done = stream, False


class FakeDevice:
    """See `dmcodec.runtime.tensorrt.device.Device`.

    Streams run as late as possible; with `eager`, a call that waits for one runs all others first.
    """

    def __init__(self, gpu: Gpu = GPU, memory_bytes: int = 1 << 30, eager: bool = False) -> None:
        self._gpu, self._left, self._eager = gpu, memory_bytes, eager
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._pinned: dict[int, NDArray[np.uint8]] = {}
        self._streams: dict[int, collections.deque[tuple[Operation, _Marker | None]]] = {}
        self._events: dict[int, _Marker | None] = {}
        self._capturing: dict[int, tuple[int, list[Operation]]] = {}
        self._graphs: dict[int, list[Operation]] = {}
        self._numbers = itertools.count(1)
        self._current = threading.local()
        self._lock = threading.RLock()
        self.allocations = self.launches = self.copies = 0
        self.fail_capture = False

    @property
    def gpu(self) -> Gpu:
        return self._gpu

    def make_current(self) -> None:
        self._current.set = True

    def allocate(self, size_bytes: int) -> int:
        with self._checked():
            if self._captures_here():
                raise FaultError("allocated during a capture")
            if size_bytes > self._left:
                raise GpuError(f"{self._gpu.name}: no memory left for {size_bytes / 1e6:.1f} MB more")
            self._left -= size_bytes
            self.allocations += 1
            address = next(self._numbers) << 32
            self._memory[address] = np.full(size_bytes, 0xFF, np.uint8)  # NaN, so that what is not written shows
            return address

    def free(self, address: int) -> None:
        with self._checked():
            self._left += len(self._find(self._memory, address, 0))
            del self._memory[address]

    def allocate_pinned(self, size_bytes: int) -> NDArray[np.uint8]:
        with self._checked():
            memory = np.full(size_bytes, 0xFF, np.uint8)
            self._pinned[memory.ctypes.data] = memory
            return memory

    def free_pinned(self, memory: NDArray[np.uint8]) -> None:
        with self._checked():
            del self._pinned[memory.ctypes.data]

    def create_stream(self) -> int:
        with self._checked():
            stream = next(self._numbers)
            self._streams[stream] = collections.deque()
            return stream

    def synchronize(self, stream: int) -> None:
        with self._checked():
            if self._captures_here():
                raise FaultError("waited for a stream during a capture")
            if self._eager:
                for other in [other for other in self._streams if other != stream]:
                    self._run(other)
            self._run(stream)

    def create_event(self) -> int:
        with self._checked():
            event = next(self._numbers)
            self._events[event] = None
            return event

    def destroy_event(self, event: int) -> None:
        with self._checked():
            del self._events[event]

    def record(self, event: int, stream: int) -> None:
        with self._checked():
            if stream in self._capturing:
                raise FaultError("an event was recorded into a capture")
            marker = _Marker(stream)
            self._events[event] = marker
            self._streams[stream].append((lambda: setattr(marker, "done", True), None))

    def wait(self, stream: int, event: int) -> None:
        with self._checked():
            if stream in self._capturing:
                raise FaultError("a capture waited for work outside of it")
            self._streams[stream].append((lambda: None, self._events[event]))

    def synchronize_event(self, event: int) -> None:
        with self._checked():
            if marker := self._events[event]:
                self._finish(marker)

    def upload(self, address: int, memory: NDArray[np.uint8], stream: int) -> None:
        self._check_pinned(memory)

        def operation() -> None:
            self._check_pinned(memory)
            self.view(address, memory.nbytes)[:] = memory

        self.enqueue(stream, operation)

    def download(self, memory: NDArray[np.uint8], address: int, stream: int) -> None:
        self._check_pinned(memory)

        def operation() -> None:
            self._check_pinned(memory)
            memory[:] = self.view(address, memory.nbytes)

        self.enqueue(stream, operation)

    def copy(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        def operation() -> None:
            self.view(target, size_bytes)[:] = self.view(source, size_bytes)

        self.copies += 1
        self.enqueue(stream, operation)

    def begin_capture(self, stream: int) -> None:
        with self._checked():
            if self._streams[stream]:
                raise FaultError("a capture began on a stream that is not idle")
            self._capturing[stream] = (threading.get_ident(), [])

    def end_capture(self, stream: int) -> Any:
        with self._checked():
            if stream not in self._capturing:
                raise GpuError("not capturing")
            _, operations = self._capturing.pop(stream)
            if self.fail_capture:
                raise GpuError("the capture was invalidated")
            graph = next(self._numbers)
            self._graphs[graph] = operations
            return graph

    def launch(self, graph: Any, stream: int) -> None:
        with self._checked():
            self.launches += 1
            self._streams[stream].extend((operation, None) for operation in self._graphs[graph])

    def destroy_graph(self, graph: Any) -> None:
        with self._checked():
            del self._graphs[graph]

    # For the simulated TensorRT

    def enqueue(self, stream: int, operation: Operation) -> None:
        """Put work on a stream, or into its capture."""
        with self._checked():
            if stream in self._capturing:
                self._capturing[stream][1].append(operation)
            else:
                self._streams[stream].append((operation, None))

    def is_capturing(self, stream: int) -> bool:
        """Return whether work on the stream is recorded."""
        return stream in self._capturing

    def view(self, address: int, size_bytes: int) -> NDArray[np.uint8]:
        """Return device memory; called when the work runs."""
        base, offset = address >> 32 << 32, address & 0xFFFFFFFF
        return self._find(self._memory, base, offset + size_bytes)[offset : offset + size_bytes]

    @property
    def graphs(self) -> int:
        """Number of captured graphs that exist."""
        return len(self._graphs)

    def _find(self, memory: dict[int, NDArray[np.uint8]], address: int, size_bytes: int) -> NDArray[np.uint8]:
        if address not in memory:
            raise FaultError("used memory that was freed or never allocated")
        if size_bytes > len(memory[address]):
            raise FaultError(f"used {size_bytes} bytes of {len(memory[address])}")
        return memory[address]

    def _check_pinned(self, memory: NDArray[np.uint8]) -> None:
        self._find(self._pinned, memory.ctypes.data, memory.nbytes)

    def _checked(self) -> Any:
        if not getattr(self._current, "set", False):
            raise FaultError("this thread has no current device")
        return self._lock

    def _captures_here(self) -> bool:
        return any(thread == threading.get_ident() for thread, _ in self._capturing.values())

    def _run(self, stream: int) -> None:
        queue = self._streams[stream]
        while queue:
            operation, waits_for = queue.popleft()
            if waits_for is not None:
                self._finish(waits_for)
            operation()

    def _finish(self, marker: _Marker) -> None:
        queue = self._streams[marker.stream]
        while not marker.done:
            operation, waits_for = queue.popleft()
            if waits_for is not None:
                self._finish(waits_for)
            operation()
