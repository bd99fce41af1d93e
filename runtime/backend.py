"""What the runtime asks of a backend: load a graph, run it, hand the result over."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dmcodec.bundle import GRAPH_NAMES, Bundle, GraphSpec

# FOLDED: The loaded graphs of a bundle on one backend.


# An array, or whatever the backend keeps on its device between two graphs.
DeviceTensor = Any


class Runner(Protocol):
    """One loaded graph. Safe to call from several threads."""

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        """Runs the graph on arrays or on results of other runners of the same backend; outputs in their order."""


class Backend(Protocol):
    """Loads graphs for one device."""

    @property
    def name(self) -> str:
        """`onnxruntime`, ..."""

    @property
    def provider(self) -> str:
        """The device class that runs: `cpu`, `cuda`."""

    @property
    def version(self) -> str:
        """Version of the library behind it."""

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        """Loads a graph; raises BackendError or ProviderError where it can't run as asked."""

    @property
    def threads(self) -> int:
        """CPU threads of one run."""

    def single_threaded(self) -> Backend | None:
        """The same with one thread a run, to run several batches side by side; None where that gains nothing."""

    def to_array(self, value: DeviceTensor) -> NDArray[Any]:
        """A result as an array in host memory."""


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
