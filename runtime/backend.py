"""Backends: the interface of what runs graphs, and the loaded graphs of a bundle."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dmcodec.bundle import GRAPH_NAMES, STEPS, Bundle, GraphSpec, state_size
from dmcodec.errors import BackendError

from .dlpack import ArrayView
from .plain import first_form, fitting_form, is_bucket

# A numpy array, or the backend's own type for a tensor that stays on its device between two graphs.
DeviceTensor = Any


class Runner(Protocol):
    """One loaded graph. Safe to call from several threads."""

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        """Run the graph on arrays, or on outputs of other runners of the same backend; return its outputs in order.

        Raises:
            BackendError: the graph failed, or an input has another name, shape or dtype than the graph's.
        """


class Backend(Protocol):
    """Loads graphs for one device."""

    @property
    def name(self) -> str:
        """`onnxruntime` or `tensorrt`."""

    @property
    def provider(self) -> str:
        """What runs the graphs: `cpu`, `cuda` or `tensorrt`."""

    @property
    def version(self) -> str:
        """Version of the library that the backend uses."""

    @property
    def threads(self) -> int:
        """CPU threads of one run."""

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        """Load a graph.

        Raises:
            BackendError: the graph can't be loaded.
            ProviderError: the requested provider would not run it.
        """

    def single_threaded(self) -> Backend | None:
        """Return a backend with one thread per run, for concurrent batches; None if these are not faster."""

    @property
    def single_threaded_streams(self) -> bool:
        """Whether streams run on `single_threaded`, where there is one: their steps are too small for more threads."""

    def to_array(self, value: DeviceTensor) -> NDArray[Any]:
        """Return an output as an array in host memory."""


@dataclasses.dataclass(frozen=True)
class Captures:
    """Fixed shapes that run from CUDA graphs, which cost one launch instead of one for each kernel.

    Attributes:
        captured: shapes whose graph was captured here.
        by_library: shapes whose graph the library captures and launches itself, as TensorRT for RTX does; it does not
            say whether it could.
        launches: runs of all these shapes.
        failed: shapes that can't be captured, and run kernel by kernel.
        reasons: why, the first few.
    """

    captured: int
    by_library: int
    launches: int
    failed: int
    reasons: tuple[str, ...] = ()


class DeviceSide(Protocol):
    """What a backend offers that keeps values on its own device; see `device_side`."""

    @property
    def device_id(self) -> int:
        """Number of the GPU."""

    def free_bytes(self) -> int:
        """Return the device memory that is left for further work."""

    def max_batch(self, graph: str, length: int) -> int:
        """Return how many items of `length` samples or frames a graph can run at once; 0 where it can run none."""

    def captures(self) -> Captures:
        """Return what became of fixed shapes so far."""

    def each_stream(self, count: int) -> Iterator[None]:
        """Yield `count` times, each time with another CUDA stream as the one that runs the next call."""

    def adopt(self, view: ArrayView) -> DeviceTensor:
        """Return an array on the device as it is; work on it waits for its streams."""

    def upload(self, array: NDArray[Any]) -> DeviceTensor:
        """Copy an array to the device."""

    def close(self) -> None:
        """Free all memory, streams and graphs on the device, after the calls that run."""


def device_side(backend: Backend) -> DeviceSide | None:
    """Return what a backend offers that keeps values on its own device; None for all others."""
    side: DeviceSide | None = getattr(backend, "device_side", None)
    return side


class Graphs:
    """The graphs of a bundle on one backend, each loaded when it is first needed. Safe to use from several threads.

    A child process of a fork loads its own: the threads of the parent's do not exist there. On a GPU that is an error.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        # Where clips are padded to shapes that are prepared, that takes the lengths: on CUDA, unless a clip has such a
        # shape as it is. Engines are built for graphs with lengths.
        runs_onnx = backend.name == "onnxruntime"
        self._has_plain_forms = runs_onnx and backend.provider == "cpu"
        self._pads_to_buckets = runs_onnx and backend.provider == "cuda"
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()
        self._forked = self._closed = False
        _open.add(self)

    def state_size(self, steps: str) -> int:
        """Return the size of the state of a graph that runs in steps; 0 where windows run in place of it.

        Steps run on the CPU. Engines are built for windows, whose values stay on the device.
        """
        return state_size(self.bundle.manifest.graphs, steps) if self._has_plain_forms else 0

    def load(self, *names: str) -> None:
        """Load the named graphs, all by default, in the form that one clip takes, and in steps where they run so."""
        for name in names or GRAPH_NAMES:
            self._runner(first_form(self.bundle.manifest.graphs, name) if self._has_plain_forms else name)
            if self.state_size(steps := STEPS.get(name, "")):
                self._runner(steps)

    def run(self, name: str, **inputs: DeviceTensor) -> list[DeviceTensor]:
        """Run a graph, in its plain form where the inputs allow it; its outputs stay on the device."""
        chosen: Mapping[str, DeviceTensor] = inputs
        manifest = self.bundle.manifest
        if self._has_plain_forms or (self._pads_to_buckets and is_bucket(manifest.config, name, inputs)):
            name, chosen = fitting_form(manifest.config, manifest.graphs, name, inputs)
        return self._runner(name).run(chosen)

    def arrays(self, name: str, **inputs: DeviceTensor) -> list[NDArray[Any]]:
        """Run a graph; return its outputs as arrays in host memory."""
        return [self.backend.to_array(value) for value in self.run(name, **inputs)]

    def close(self) -> None:
        """Give up the loaded graphs; later runs are errors."""
        with self._lock:
            self._closed = True
            self._runners = {}

    def _runner(self, name: str) -> Runner:
        with self._lock:
            if self._closed:
                raise BackendError(f"{self.bundle.path}: this codec was closed; load another one with Codec.load")
            if self._forked and self.backend.provider != "cpu":
                raise BackendError(
                    f"{self.bundle.path}: was loaded before a fork, which a GPU does not survive; load the codec in "
                    'the process that uses it, or start processes with multiprocessing.get_context("spawn")'
                )
            if name not in self._runners:
                spec = self.bundle.manifest.graphs[name]
                self._runners[name] = self.backend.load(self.bundle.graph_path(name), spec)
            return self._runners[name]

    def _forget(self) -> None:
        """Give up the parent's runners without ending them: that would wait for threads that are not here."""
        for runner in self._runners.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(runner))  # never freed, not even when the process ends
        self._runners, self._lock, self._forked = {}, threading.Lock(), True


# What a fork copies: all that a child process must give up.
_open: weakref.WeakSet[Graphs] = weakref.WeakSet()


def _after_fork() -> None:
    for graphs in list(_open):
        graphs._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
