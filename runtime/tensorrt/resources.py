"""The streams and the memory of a device, shared by all graphs of a backend and freed with it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dmcodec.errors import BackendError, GpuError
from dmcodec.runtime.backend import Captures

from .device import Device
from .engine import Context, Engine
from .memory import Block, DevicePool, PinnedPool
from .profiles import Shape

MAX_STREAMS = 8
_MAX_REASONS = 4

Blocks = Mapping[str, Block[int]]
# The memory of each output, and the shape of what is in it.
Outputs = dict[str, tuple[Block[int], Shape]]


@dataclasses.dataclass(frozen=True)
class FixedRun:
    """One shape of an engine with a context and buffers of its own, whose addresses never change.

    Attributes:
        graph: handle of the captured CUDA graph; None where the library captures and launches its own.
        context: the execution context of the capture; no other run may use it.
        inputs, scratch, outputs: its buffers. The scratch belongs to the stream.
    """

    graph: Any | None
    context: Context
    inputs: Blocks
    scratch: Block[int]
    outputs: Outputs

    def blocks(self) -> list[Block[int]]:
        """Return the buffers that are its own."""
        return [*self.inputs.values(), *(block for block, _ in self.outputs.values())]


class PooledStream:
    """A CUDA stream with its execution contexts and fixed runs.

    Attributes:
        handle: of the stream.
        fixed: fixed runs by shape, the last used at the end; None where a shape can't be captured.
    """

    def __init__(self, device: Device, memory: DevicePool) -> None:
        self.handle = device.create_stream()
        self.fixed: OrderedDict[Hashable, FixedRun | None] = OrderedDict()
        self._device, self._memory = device, memory
        self._contexts: dict[Engine, Context] = {}
        self._scratch: Block[int] | None = None

    def context(self, engine: Engine) -> Context:
        """Return the engine's context on this stream, for shapes that are not fixed."""
        if engine not in self._contexts:
            self._contexts[engine] = engine.context()
        return self._contexts[engine]

    def scratch(self, size_bytes: int) -> Block[int]:
        """Return scratch memory for a fixed run. All of this stream share it: they never run at the same time."""
        before = self._scratch
        if before is not None and before.size_bytes >= size_bytes:
            return before
        self._scratch = scratch = self._memory.acquire(size_bytes, self.handle)
        self._release_scratch(before)
        return scratch

    def drop(self, key: Hashable) -> None:
        """Free a fixed run, after its work."""
        run = self.fixed.pop(key)
        if run is None:
            return
        self._device.synchronize(self.handle)
        if run.graph is not None:
            self._device.destroy_graph(run.graph)
        self.release(run.blocks())
        self._release_scratch(run.scratch)

    def release(self, blocks: Iterable[Block[int]]) -> None:
        """Return blocks to the pool that work on this stream may still be using."""
        for block in blocks:
            block.record_use(self.handle)
            self._memory.release(block)

    def close(self) -> None:
        """Free all fixed runs and contexts, after their work."""
        self._device.synchronize(self.handle)
        for key in list(self.fixed):
            self.drop(key)
        self._contexts.clear()
        before, self._scratch = self._scratch, None
        self._release_scratch(before)

    def _release_scratch(self, block: Block[int] | None) -> None:
        """Return scratch memory to the pool, unless a fixed run holds its address or it is the one in use."""
        held = any(run is not None and run.scratch is block for run in self.fixed.values())
        if block is not None and block is not self._scratch and not held:
            self.release([block])


class CaptureCounter:
    """Counts what became of fixed shapes; see `dmcodec.runtime.backend.Captures`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._captured = self._by_library = self._launches = self._failed = 0
        self._reasons: dict[str, None] = {}

    def add_capture(self, by_library: bool) -> None:
        """Count a shape that runs from a CUDA graph from now on."""
        with self._lock:
            self._captured += not by_library
            self._by_library += by_library

    def add_failure(self, reason: str) -> None:
        """Count a shape that can't be captured."""
        with self._lock:
            self._failed += 1
            self._reasons.setdefault(reason)

    def add_launch(self) -> None:
        """Count a run of a fixed shape."""
        with self._lock:
            self._launches += 1

    def result(self) -> Captures:
        """Return the counts."""
        with self._lock:
            reasons = tuple(self._reasons)[:_MAX_REASONS]
            return Captures(self._captured, self._by_library, self._launches, self._failed, reasons)


class DeviceResources:
    """The streams and memory of a device, shared by all graphs of a backend.

    They are freed by `close`, when nothing refers to this object any more, or when Python exits.

    Attributes:
        device: the GPU.
        memory: pool of device memory.
        pinned: pool of pinned host memory.
        captures: counts of captured graphs.
        before_close: called before all is freed; must not refer to this object.
    """

    def __init__(self, device: Device, max_streams: int = MAX_STREAMS) -> None:
        self.device = device
        self.memory = DevicePool(device)
        self.pinned = PinnedPool(device)
        self.captures = CaptureCounter()
        self.before_close: list[Callable[[], None]] = []
        self._streams: list[PooledStream] = []
        self._free_streams: list[PooledStream] = []
        self._lock = threading.Lock()
        self._max_streams, self._places = max_streams, threading.Semaphore(max_streams)
        self._closed = False
        self._free_all = weakref.finalize(
            self, _free_all, device, self._streams, self.memory, self.pinned, self.before_close, os.getpid()
        )

    @contextlib.contextmanager
    def lease_stream(self) -> Iterator[PooledStream]:
        """Lend a stream to the calling thread; wait where all are in use. Don't lease two at once.

        Raises:
            BackendError: the resources were freed.
        """
        with self._places, self.device.current():
            if self._closed:
                raise BackendError("this codec was closed; load another one with Codec.load")
            with self._lock:
                # The last one that was returned: the fewer streams are used, the fewer contexts and graphs exist.
                stream = self._free_streams.pop() if self._free_streams else None
            if stream is None:
                stream = PooledStream(self.device, self.memory)
                self._streams.append(stream)
            try:
                yield stream
            finally:
                with self._lock:
                    self._free_streams.append(stream)

    def each_stream(self, count: int) -> Iterator[None]:
        """Yield `count` times, but at most once a stream, each time with another one as the one that is lent next."""
        with contextlib.ExitStack() as held:
            for left in reversed(range(min(count, self._max_streams))):
                yield
                if left:
                    held.enter_context(self.lease_stream())

    def close(self) -> None:
        """Free everything, after the calls that run; arrays on the device are freed when nothing refers to them."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for _ in range(self._max_streams):
            self._places.acquire()
        try:
            self._free_all()
        finally:
            self._places.release(self._max_streams)


def _destroy_stream(device: Device, stream: int) -> None:
    device.synchronize(stream)
    device.destroy_stream(stream)


def _free_all(
    device: Device,
    streams: Sequence[PooledStream],
    memory: DevicePool,
    pinned: PinnedPool,
    before: Sequence[Callable[[], None]],
    process: int,
) -> None:
    if os.getpid() != process:  # of a fork: they are the parent's
        return
    steps = [*before, *(stream.close for stream in streams), memory.close, pinned.close]
    steps += [functools.partial(_destroy_stream, device, stream.handle) for stream in streams]
    for step in steps:
        with contextlib.suppress(GpuError), device.current():  # a broken GPU must not hide the error that came first
            step()
