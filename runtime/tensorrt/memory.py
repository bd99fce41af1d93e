"""Pools of device and of pinned host memory: a block that is given back is used again, with no allocation in between.

A block remembers on which streams it was used last. Whoever takes it next waits for them, on the device where that is
device memory: the host doesn't stop.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

from dmcodec.errors import GpuError

from .device import Device, PinnedMemory
from .engine import Context, Engine

# FOLDED: Streams, each lent to one thread at a time, and what belongs to a stream: contexts and captured graphs.


Memory = TypeVar("Memory", int, PinnedMemory)
_SMALLEST_BYTES = 256


class Block(Generic[Memory]):
    """Memory of a pool: an address on the device, or pinned bytes."""

    def __init__(self, device: Device, memory: Memory, size_bytes: int) -> None:
        self.memory: Memory = memory
        self.size_bytes = size_bytes
        self._device = device
        self._events: dict[int, int] = {}
        self._lock = threading.Lock()

    def used_on(self, stream: int) -> None:
        """Notes that what is on `stream` now uses the block."""
        with self._lock:
            if stream not in self._events:
                self._events[stream] = self._device.create_event()
            self._device.record(self._events[stream], stream)

    def wait_on(self, stream: int) -> None:
        """Lets `stream` wait for all earlier uses on others."""
        with self._lock:
            for other, event in self._events.items():
                if other != stream:
                    self._device.wait(stream, event)

    def wait(self) -> None:
        """Waits for all earlier uses."""
        with self._lock:
            for event in self._events.values():
                self._device.synchronize_event(event)

    def forget(self) -> None:
        """Gives its events back; nothing uses it any more."""
        with self._lock:
            for event in self._events.values():
                self._device.destroy_event(event)
            self._events.clear()


class _Pool(ABC, Generic[Memory]):
    def __init__(self, device: Device) -> None:
        self._device = device
        self._free: dict[int, list[Block[Memory]]] = {}
        # Blocks come back from the garbage collector, too, which may run anywhere: appending takes no lock.
        self._returned: collections.deque[Block[Memory]] = collections.deque()
        self._lock = threading.Lock()
        self.allocated_bytes = 0
        self.allocations = 0

    def give(self, block: Block[Memory]) -> None:
        """Gives a block back; work that is on streams may still be using it."""
        self._returned.append(block)

    def trim(self) -> None:
        """Frees all blocks that nobody holds."""
        with self._lock:
            self._collect()
            blocks = [block for free in self._free.values() for block in free]
            self._free.clear()
        for block in blocks:
            block.wait()
            block.forget()
            self._release(block.memory)
            self.allocated_bytes -= block.size_bytes

    def _take(self, size_bytes: int) -> Block[Memory]:
        size = size_class(size_bytes)
        with self._lock:
            self._collect()
            free = self._free.get(size)
            if free:
                return free.pop(0)  # the one that was given back first is the likeliest to be done
        try:
            memory = self._allocate(size)
        except GpuError:
            self.trim()
            memory = self._allocate(size)
        with self._lock:
            self.allocated_bytes += size
            self.allocations += 1
        return Block(self._device, memory, size)

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            self._free.setdefault(block.size_bytes, []).append(block)

    @abstractmethod
    def _allocate(self, size_bytes: int) -> Memory: ...

    @abstractmethod
    def _release(self, memory: Memory) -> None: ...


class DevicePool(_Pool[int]):
    """Device memory."""

    def take(self, size_bytes: int, stream: int) -> Block[int]:
        """Memory that `stream` may use from now on.

        Raises:
            GpuError: no device memory left.
        """
        block = self._take(size_bytes)
        block.wait_on(stream)
        return block

    def _allocate(self, size_bytes: int) -> int:
        return self._device.allocate(size_bytes)

    def _release(self, memory: int) -> None:
        self._device.free(memory)


class PinnedPool(_Pool[PinnedMemory]):
    """Page-locked host memory, for copies that the host doesn't wait for."""

    def take(self, size_bytes: int) -> Block[PinnedMemory]:
        """Memory that no copy is using any more."""
        block = self._take(size_bytes)
        block.wait()
        return block

    def _allocate(self, size_bytes: int) -> PinnedMemory:
        return self._device.allocate_pinned(size_bytes)

    def _release(self, memory: PinnedMemory) -> None:
        self._device.free_pinned(memory)


def size_class(size_bytes: int) -> int:
    """The size that is allocated for `size_bytes`: at most a quarter more, so that blocks fit again."""
    size = max(size_bytes, _SMALLEST_BYTES)
    step = max(_SMALLEST_BYTES, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step


MAX_LANES = 8


class Lane:
    """A stream and what runs on it.

    Attributes:
        stream: its handle.
        captures: by shape, the one used last at the end. None: met once and run plainly; False: can't be captured.
    """

    def __init__(self, device: Device) -> None:
        self.stream = device.create_stream()
        self.captures: OrderedDict[Hashable, Any] = OrderedDict()
        self._contexts: dict[Engine, Context] = {}

    def context(self, engine: Engine) -> Context:
        """The engine's context on this stream."""
        if engine not in self._contexts:
            self._contexts[engine] = engine.context()
        return self._contexts[engine]


class Lanes:
    """The lanes of a device, and its memory."""

    def __init__(self, device: Device, limit: int = MAX_LANES) -> None:
        self.device = device
        self.memory = DevicePool(device)
        self.pinned = PinnedPool(device)
        self._free: list[Lane] = []
        self._lock = threading.Lock()
        self._places = threading.Semaphore(limit)

    @contextlib.contextmanager
    def lease(self) -> Iterator[Lane]:
        """A lane for the calling thread; waits for one where all are lent. Don't lease another meanwhile."""
        with self._places:
            self.device.use()
            with self._lock:
                # The last one that was given back: the fewer are in use, the fewer contexts and captures there are.
                lane = self._free.pop() if self._free else None
            lane = lane or Lane(self.device)
            try:
                yield lane
            finally:
                with self._lock:
                    self._free.append(lane)
