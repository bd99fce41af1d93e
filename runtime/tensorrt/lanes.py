"""Streams, each lent to one thread at a time, and what belongs to a stream: contexts and captured graphs."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Any

from dmcodec.runtime.tensorrt.device import Device
from dmcodec.runtime.tensorrt.memory import DevicePool, PinnedPool
from dmcodec.tensorrt.engine import Context, Engine

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
