"""What the runner asks of a GPU: memory, streams, events, copies and captured graphs; by addresses and handles.

Calls on a stream return before the work is done; host memory of a copy, and device memory, must stay until it is.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.tensorrt.driver import Gpu

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
