"""What the runtime asks of a backend: load a graph, run it, hand the result over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dmcodec.bundle import GraphSpec

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
