"""Blocks of device memory and of pinned host memory that are used again.

A block records the streams that use it. Its next user waits for that work: on the stream where it is device memory,
without stopping the host, and on the host where it is pinned memory.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from dmcodec.errors import GpuError

from .device import Device, PinnedMemory

_SMALLEST_BYTES = 256
Memory = TypeVar("Memory", int, PinnedMemory)


class Block(Generic[Memory]):
    """Memory of a pool, or of the application.

    Attributes:
        memory: the address on the device, or pinned bytes.
        size_bytes: its size, at least what was asked for.
    """

    def __init__(self, device: Device, memory: Memory, size_bytes: int) -> None:
        self.memory: Memory = memory
        self.size_bytes = size_bytes
        self._device = device
        self._events: dict[int, int] = {}  # of each stream that used the block
        self._lock = threading.Lock()

    def record_use(self, stream: int) -> None:
        """Record that the work that is now on `stream` uses the block."""
        with self._lock:
            if stream not in self._events:
                self._events[stream] = self._device.create_event()
            self._device.record(self._events[stream], stream)

    def make_wait(self, stream: int) -> None:
        """Make `stream` wait for all recorded uses on other streams."""
        with self._lock:
            for other, event in self._events.items():
                if other != stream:
                    self._device.wait(stream, event)

    def synchronize(self) -> None:
        """Wait on the host for all recorded uses."""
        with self._lock:
            for event in self._events.values():
                self._device.synchronize_event(event)

    def destroy_events(self) -> None:
        """Destroy the events of a block that no work uses any more."""
        with self._lock, self._device.current():
            for event in self._events.values():
                self._device.destroy_event(event)
            self._events.clear()


class Pool(ABC, Generic[Memory]):
    """Blocks that were released, by size, for the next users."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._free: dict[int, list[Block[Memory]]] = {}
        # The garbage collector releases blocks too, at any point of any thread: appending here takes no lock.
        self._returned: collections.deque[Block[Memory]] = collections.deque()
        self._lock = threading.Lock()
        self._closed = False
        self.allocated_bytes = 0
        self.allocations = 0

    def release(self, block: Block[Memory]) -> None:
        """Return a block to the pool. Work on streams may still be using it."""
        self._returned.append(block)
        if self._closed:
            self._free_returned()

    @property
    def idle_bytes(self) -> int:
        """Bytes of the blocks that have no user."""
        with self._lock:
            self._collect()
            return sum(size * len(blocks) for size, blocks in self._free.items())

    def trim(self) -> None:
        """Free all blocks of the pool that have no user."""
        with self._lock:
            self._collect()
            blocks = [block for free in self._free.values() for block in free]
            self._free.clear()
        for block in blocks:
            self._give_back(block)

    def close(self) -> None:
        """Free all blocks that have no user, and from now on each block when it is released."""
        self._closed = True
        self.trim()

    def _free_returned(self) -> None:
        """Free what was released after the pool was closed; the garbage collector may call this: no lock."""
        while self._returned:
            with contextlib.suppress(IndexError, GpuError), self._device.current():
                self._give_back(self._returned.popleft())

    def _give_back(self, block: Block[Memory]) -> None:
        block.synchronize()
        block.destroy_events()
        self._free_memory(block.memory)
        self.allocated_bytes -= block.size_bytes

    def _acquire(self, size_bytes: int) -> Block[Memory]:
        size = size_class(size_bytes)
        with self._lock:
            self._collect()
            free = self._free.get(size)
            if free:
                return free.pop(0)  # the work of the one that was released first is the likeliest to be done
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
    def _free_memory(self, memory: Memory) -> None: ...


class DevicePool(Pool[int]):
    """Pool of device memory."""

    def acquire(self, size_bytes: int, stream: int) -> Block[int]:
        """Return memory that `stream` may use from now on.

        Raises:
            GpuError: no device memory is left.
        """
        block = self._acquire(size_bytes)
        block.make_wait(stream)
        return block

    def _allocate(self, size_bytes: int) -> int:
        return self._device.allocate(size_bytes)

    def _free_memory(self, memory: int) -> None:
        self._device.free(memory)


class PinnedPool(Pool[PinnedMemory]):
    """Pool of page-locked host memory, for copies that the host does not wait for."""

    def acquire(self, size_bytes: int) -> Block[PinnedMemory]:
        """Return memory that no copy uses any more."""
        block = self._acquire(size_bytes)
        block.synchronize()
        return block

    def _allocate(self, size_bytes: int) -> PinnedMemory:
        return self._device.allocate_pinned(size_bytes)

    def _free_memory(self, memory: PinnedMemory) -> None:
        self._device.free_pinned(memory)


def size_class(size_bytes: int) -> int:
    """Return the size to allocate for `size_bytes`: up to a quarter more, so that blocks can be used again."""
    size = max(size_bytes, _SMALLEST_BYTES)
    step = max(_SMALLEST_BYTES, 1 << max(0, size.bit_length() - 3))
    return -(-size // step) * step
