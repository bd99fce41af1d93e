"""Backends: the interface of what runs graphs, and the loaded graphs of a bundle."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from dmcodec.bundle import GRAPH_NAMES, Bundle, GraphSpec
from dmcodec.errors import BackendError

from .plain import first_form, fitting_form

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


class Graphs:
    """The graphs of a bundle on one backend, each loaded when it is first needed. Safe to use from several threads.

    A child process of a fork loads its own: the threads of the parent's do not exist there. On a GPU that is an error.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.backend = backend
        # Engines, and providers of a GPU, run clips padded to shapes that they have prepared: that takes the lengths.
        self._has_plain_forms = (backend.name, backend.provider) == ("onnxruntime", "cpu")
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()
        self._forked = False
        _open.add(self)

    def load(self, *names: str) -> None:
        """Load the named graphs, all by default, in the form that one clip takes."""
        for name in names or GRAPH_NAMES:
            self._runner(first_form(self.bundle.manifest.graphs, name) if self._has_plain_forms else name)

    def run(self, name: str, **inputs: DeviceTensor) -> list[DeviceTensor]:
        """Run a graph, in its plain form where the inputs allow it; its outputs stay on the device."""
        chosen: Mapping[str, DeviceTensor] = inputs
        if self._has_plain_forms:
            manifest = self.bundle.manifest
            name, chosen = fitting_form(manifest.config, manifest.graphs, name, inputs)
        return self._runner(name).run(chosen)

    def arrays(self, name: str, **inputs: DeviceTensor) -> list[NDArray[Any]]:
        """Run a graph; return its outputs as arrays in host memory."""
        return [self.backend.to_array(value) for value in self.run(name, **inputs)]

    def _runner(self, name: str) -> Runner:
        with self._lock:
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
