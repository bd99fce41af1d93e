"""The TensorRT backend: finds the engines of a bundle that this GPU and library can run, and runs them.

Everything that can be checked is checked before TensorRT is called: the driver, the folder of engines, and the record
of each engine. Written against the documented API and tested on a simulated GPU; not yet run on a real one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import Bundle, GraphSpec
from dmcodec.errors import EngineError
from dmcodec.runtime.backend import Captures, DeviceTensor, Runner
from dmcodec.runtime.dlpack import ArrayView

from .arrays import DeviceArray
from .device import Device
from .driver import Gpu
from .engine import Engine
from .engine_store import GENERIC, EngineRecord, EngineStore, engine_folder, this_system
from .library import FLAVOURS, Library
from .resources import DeviceResources
from .runner import EngineRunner
from .runtime_cache import RuntimeCache
from .shapes import max_batch


class TensorrtBackend:
    """Runs a bundle's engines; see `dmcodec.runtime.backend.Backend`.

    Args:
        bundle: the bundle of the engines.
        engine_cache: folder of the engines; by default `engines` in the bundle.
        capture: run fixed shapes from captured CUDA graphs.
        device: the GPU; by default number `device_id`, through cuda-bindings.
        library: by default the flavour of the stored engines, full TensorRT before RTX.
        device_id: number of the GPU among those that the process sees.

    Raises:
        GpuError: no driver, no GPU, or a driver that is too old.
        EngineError: there are no engines for this bundle.
        MissingDependencyError: the engines' library, or cuda-bindings, is not installed.
    """

    name = "tensorrt"
    provider = "cuda"
    threads = 1
    single_threaded_streams = False

    def __init__(
        self,
        bundle: Bundle,
        engine_cache: str | Path | None = None,
        capture: bool = True,
        device: Device | None = None,
        library: Library | None = None,
        device_id: int = 0,
    ) -> None:
        self._bundle, self._engine_cache, self._capture = bundle, engine_cache, capture
        self._device_id = device_id
        self._store = EngineStore(engine_folder(bundle.path, engine_cache))
        self._device = device or _cuda_device(device_id)
        self._records, self._problems = self._store.records()
        self._library = library or self._library_of_engines()
        self.resources = DeviceResources(self._device)
        self._cache: RuntimeCache | None = None
        if self._library.member("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE") is not None:
            self._cache = RuntimeCache(self._library, self._store.folder, self._device.gpu)
            self.resources.before_close.append(self._cache.save)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: the process that unpickles finds its own GPU and library."""
        folder = None if self._engine_cache is None else Path(self._engine_cache).absolute()
        return type(self), (self._bundle, folder, self._capture, None, None, self._device_id)

    @property
    def version(self) -> str:
        """Flavour and version of the library."""
        return f"{self._library.flavour} {self._library.version}"

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        """Load the engines of a graph; see `dmcodec.runtime.backend.Backend`."""
        name = path.stem
        engines = []
        for record in self._usable(name, spec):
            plan = self._store.plan(record)
            host_code = bool(record.key.options.get("version_compatible"))
            with self._device.current():
                engine = Engine(self._library, plan, record.key.file, host_code, self._cache)
            engines.append((engine, record.key.profiles))
        return EngineRunner(name, spec, self._bundle.manifest.config, engines, self.resources, self._capture)

    def single_threaded(self) -> None:
        """Return None: concurrent batches gain nothing on a GPU that one batch fills."""
        return

    def to_array(self, value: DeviceTensor) -> NDArray[Any]:
        """Return a result as an array in host memory."""
        return np.asarray(value)

    @property
    def device_side(self) -> TensorrtBackend:
        """Itself: see `dmcodec.runtime.backend.DeviceSide`."""
        return self

    @property
    def device_id(self) -> int:
        """Number of the GPU."""
        return self._device.index

    def free_bytes(self) -> int:
        """See `dmcodec.runtime.backend.DeviceSide`; memory that the pool keeps for the next runs counts as free."""
        with self._device.current():
            return self._device.free_bytes() + self.resources.memory.idle_bytes

    def max_batch(self, graph: str, length: int) -> int:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        spec = self._bundle.manifest.graphs[graph]
        usable = [record for record in self._records if record.key.graph == graph and not self._refusal(record, spec)]
        return max_batch(graph, spec, [record.key.profiles for record in usable], length)

    def captures(self) -> Captures:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        return self.resources.captures.result()

    def each_stream(self, count: int) -> Iterator[None]:
        """See `dmcodec.runtime.backend.DeviceSide`. What RTX compiled meanwhile is written to its cache."""
        yield from self.resources.each_stream(count)
        if self._cache is not None:
            self._cache.save()

    def adopt(self, view: ArrayView) -> DeviceArray:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        return DeviceArray.adopted(self.resources, view)

    def upload(self, array: NDArray[Any]) -> DeviceArray:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        return DeviceArray.uploaded(self.resources, array)

    def close(self) -> None:
        """See `dmcodec.runtime.backend.DeviceSide`."""
        self.resources.close()

    def _usable(self, name: str, spec: GraphSpec) -> list[EngineRecord]:
        """Return the graph's engines that can run here; raise EngineError with the reasons where there are none."""
        of_graph = [record for record in self._records if record.key.graph == name]
        reasons = {record.key.file: self._refusal(record, spec) for record in of_graph}
        usable = [record for record in of_graph if reasons[record.key.file] is None]
        if not usable:
            problems = [f"{file} {reason}" for file, reason in reasons.items()]
            problems += [problem for problem in self._problems if f"{name}-" in problem]
            raise EngineError(
                f"{name}: no engine in {self._store.folder} can run here ({'; '.join(problems) or 'there is none'}); "
                f"run `dmcodec export --format trt --bundle {self._bundle.path}`"
            )
        return usable

    def _refusal(self, record: EngineRecord, spec: GraphSpec) -> str | None:
        """Return the reason why an engine can't be used; None where it can."""
        key, library = record.key, self._library
        listed = self._bundle.manifest.engines.get(key.file)
        if key.graph_sha256 != spec.sha256 or key.precision != spec.precision:
            return "was built from another graph: the bundle was exported again since"
        if listed is not None and listed.get("sha256") != record.sha256:
            return "is not the one that the bundle's manifest lists: it was altered after the build"
        if key.options.get("strip_plan"):
            return "was built without its weights (--strip-plan), which this runtime doesn't put back"
        if key.system != this_system():
            return f"was built on {key.system}, this is {this_system()}"
        if key.flavour != library.flavour:
            return f"is for {key.flavour}, in use is {library.flavour}"
        if key.version != library.version and not _runs_on_version(key.version, library.version, key.options):
            return f"is of version {key.version}, installed is {library.version}"
        if not runs_on(key.architectures, str(key.options.get("hardware_compatibility")), self._device.gpu):
            gpu = self._device.gpu
            return f"is for {', '.join(key.architectures)}, this GPU is {gpu.name} ({gpu.architecture})"
        return None

    def _library_of_engines(self) -> Library:
        flavours = {record.key.flavour for record in self._records}
        if not flavours:
            problems = f" ({'; '.join(self._problems)})" if self._problems else ""
            raise EngineError(
                f"{self._bundle.path}: no engines in {self._store.folder}{problems}; "
                f"run `dmcodec export --format trt --bundle {self._bundle.path}`"
            )
        return Library.load(next(flavour for flavour in FLAVOURS if flavour in flavours))


def runs_on(architectures: Sequence[str], hardware_compatibility: str, gpu: Gpu) -> bool:
    """Return whether an engine for `architectures` runs on `gpu`."""
    major = int(gpu.compute_capability.split(".")[0])
    if GENERIC in architectures or gpu.architecture in architectures:
        return True
    return hardware_compatibility == "ampere-plus" and major >= 8


def _runs_on_version(built: str, installed: str, options: Any) -> bool:
    """Return whether an engine runs with the installed version: it is version compatible, and not newer."""
    pair = [tuple(int(part) for part in text.split(".") if part.isdigit()) for text in (built, installed)]
    return bool(options.get("version_compatible")) and pair[0] <= pair[1]


def _cuda_device(index: int) -> Device:
    from .device import CudaDevice

    return CudaDevice(index)
