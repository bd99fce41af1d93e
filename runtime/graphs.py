"""The loaded graphs of a bundle on one backend."""

from __future__ import annotations

import threading
from typing import Any

from numpy.typing import NDArray

from dmcodec.bundle import GRAPH_NAMES, Bundle
from dmcodec.runtime.backend import Backend, DeviceTensor, Runner


class Graphs:
    """Loads each graph once, when it is first needed. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()

    def load(self, *names: str) -> None:
        """Loads the named graphs, all by default."""
        for name in names or GRAPH_NAMES:
            self._runner(name)

    def run(self, name: str, **inputs: DeviceTensor) -> list[DeviceTensor]:
        """Runs a graph; what comes out stays on the device."""
        return self._runner(name).run(inputs)

    def arrays(self, name: str, **inputs: DeviceTensor) -> list[NDArray[Any]]:
        """Runs a graph; what comes out is in host memory."""
        return [self.backend.to_array(value) for value in self.run(name, **inputs)]

    def _runner(self, name: str) -> Runner:
        with self._lock:
            if name not in self._runners:
                spec = self.bundle.manifest.graphs[name]
                self._runners[name] = self.backend.load(self.bundle.graph_path(name), spec)
            return self._runners[name]
