"""The ONNX Runtime backend: on the CPU, on CUDA, on its TensorRT provider, or on the plugin for TensorRT-RTX.

ONNX Runtime would fall back to the CPU, print about it to stdout and hide the reason. Sessions are opened without that,
and each is asked which provider it uses. The GPU code was written from the documentation and not yet run on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import GraphSpec, read_manifest
from dmcodec.cpus import default_threads
from dmcodec.errors import ArgumentError, BackendError
from dmcodec.runtime.tensorrt.profiles import Profile

from .backend import DeviceTensor, Runner
from .bucket_shapes import PaddedValue
from .buckets import BucketRunner, trimmed
from .nv_tensorrt_rtx import find_device
from .onnxruntime_import import import_onnxruntime
from .provider_graphs import ProviderGraphs
from .providers import (
    BUILD_ENGINES,
    CPU,
    CUDA,
    PROVIDERS,
    RTX_PLUGIN,
    TENSORRT,
    Options,
    cuda_options,
    load_error,
    prepare,
    provider_of,
    rtx_options,
    tensorrt_options,
)

MAX_THREADS = 1024
_WARNINGS_AND_UP = 3


class OnnxRuntimeBackend:
    """Loads graphs into ONNX Runtime sessions.

    Args:
        provider: "cpu", "cuda", "tensorrt" or "nv-tensorrt-rtx" (the last two run all but the RVQ, which then runs on
            CUDA or on the CPU).
        threads: threads of one operator; by default `dmcodec.cpus.default_threads`, and one for streams.
        shrink_memory: give the memory of each run back to the system after it; on the CPU only.
        device_id: index of the GPU.
        engine_cache: folder of what the last two providers take and keep; by default `engines` in the bundle.
        buckets: run at few shapes (`dmcodec.runtime.buckets`); by default on a GPU only.

    Raises:
        ArgumentError: an unknown provider, a number of threads out of range, or an option of another provider.
        MissingDependencyError: onnxruntime or the plugin is not installed, or two distributions of onnxruntime are.
        ProviderError: this onnxruntime does not have the provider.
        GpuError: no NVIDIA driver or GPU for the plugin.
    """

    name = "onnxruntime"

    def __init__(
        self,
        provider: str = CPU,
        threads: int | None = None,
        shrink_memory: bool = False,
        *,
        device_id: int = 0,
        engine_cache: str | Path | None = None,
        buckets: bool | None = None,
    ) -> None:
        if provider not in PROVIDERS:
            raise ArgumentError(f"provider {provider!r} is not known to onnxruntime; use one of {', '.join(PROVIDERS)}")
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise ArgumentError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
        if shrink_memory and provider != CPU:
            raise ArgumentError(f"shrink_memory is for provider cpu, not {provider}; leave it out")
        if engine_cache is not None and provider not in BUILD_ENGINES:
            raise ArgumentError(
                f"engine_cache is for backend tensorrt and providers {' and '.join(BUILD_ENGINES)}; leave it out"
            )
        self.provider = provider
        self.threads = threads or default_threads()
        self.shrink_memory, self.device_id, self.engine_cache = shrink_memory, device_id, engine_cache
        self.single_threaded_streams = threads is None
        self._chosen_threads, self._chosen_buckets = threads, buckets
        self._buckets = provider != CPU if buckets is None else buckets
        self._ort = import_onnxruntime()
        self._heard = prepare(self._ort, provider) if provider in (CUDA, TENSORRT) else ""
        self._plugin_device = find_device(self._ort, device_id) if provider == RTX_PLUGIN else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: the process that unpickles has its own onnxruntime, and its own number of CPUs."""
        folder = None if self.engine_cache is None else Path(self.engine_cache).absolute()
        make = functools.partial(
            type(self), device_id=self.device_id, engine_cache=folder, buckets=self._chosen_buckets
        )
        return make, (self.provider, self._chosen_threads, self.shrink_memory)

    @property
    def version(self) -> str:
        """Version of onnxruntime."""
        return str(self._ort.__version__)

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        """Load a graph; see `dmcodec.runtime.backend.Backend`."""
        provider = provider_of(self.provider, path.stem)
        source, profile = path, None
        options: Options = {}
        if provider == CUDA:
            options = cuda_options(spec.precision, self.device_id)
        elif provider in BUILD_ENGINES:
            graphs = ProviderGraphs(path.parent, self.engine_cache)
            source, profile = graphs.find(path.stem, spec)
            caches = graphs.caches(provider)
            if provider == RTX_PLUGIN:
                options = rtx_options(profile, caches)
            else:
                options = tensorrt_options(spec.precision, self.device_id, profile, caches)
        session = self._session(source, spec, provider, options)
        runner: Runner
        if (provider == CPU and not self._buckets) or self.provider == RTX_PLUGIN:
            # The plugin stands beside an onnxruntime for the CPU, which copies no results from a GPU by itself.
            runner = _ArrayRunner(session, path, self._run_options())
        else:
            runner = BoundRunner(self._ort, session, path, "cpu" if provider == CPU else "cuda", self.device_id)
        return self._bucketed(runner, path, spec, profile)

    def single_threaded(self) -> OnnxRuntimeBackend | None:
        """Return a backend with one thread per run; None on a GPU, or if this one has one thread."""
        if self.provider != CPU or self.threads == 1:
            return None
        return OnnxRuntimeBackend(self.provider, 1, self.shrink_memory, buckets=self._chosen_buckets)

    def to_array(self, value: DeviceTensor) -> NDArray[Any]:
        """Return an output as an array in host memory."""
        if isinstance(value, PaddedValue):
            return trimmed(value, self.to_array)
        array: NDArray[Any] = value if isinstance(value, np.ndarray) else value.numpy()
        return array

    def _bucketed(self, runner: Runner, path: Path, spec: GraphSpec, profile: Profile | None) -> Runner:
        if not self._buckets:
            return runner
        config = read_manifest(path.parent).config
        return BucketRunner(path.stem, spec, config, runner, self.to_array, profile)

    def _session(self, path: Path, spec: GraphSpec, provider: str, options: Options) -> Any:
        """Open a session that runs on `provider`, or raise an error with the reason of onnxruntime."""
        session_options = self._session_options()
        providers: list[Any] | None = [(PROVIDERS[provider], options)] if options else [PROVIDERS[provider]]
        if provider == RTX_PLUGIN:
            session_options.add_provider_for_devices([self._plugin_device], options)
            providers = None  # the options of the session name it
        elif provider == TENSORRT:  # CUDA runs what TensorRT does not take
            providers = [*(providers or ()), (PROVIDERS[CUDA], cuda_options(spec.precision, self.device_id))]
        try:
            session = self._ort.InferenceSession(str(path), session_options, providers=providers, enable_fallback=0)
        except Exception as error:
            if provider != CPU:
                raise load_error(path, self._ort, provider, error, self._heard) from error
            raise BackendError(
                f"{path}: onnxruntime {self.version} can't load this graph; "
                "update onnxruntime, or export the bundle again (--debug shows its reason)"
            ) from error
        if session.get_providers()[0] != PROVIDERS[provider]:
            problem = RuntimeError(f"it chose {session.get_providers()[0]}")
            raise load_error(path, self._ort, provider, problem, self._heard)
        return session

    def _run_options(self) -> Any:
        if not self.shrink_memory:
            return None
        options = self._ort.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def _session_options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _WARNINGS_AND_UP
        # Lengths differ between calls: a memory plan of each would be kept and not used again.
        options.enable_mem_pattern = False
        # Worker threads spin during a run, which makes the many small steps of the LSTM faster. After the run they
        # would take the cores from the next graph, or from the rest of the application.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Threads also begin to spin when a session is made, and would for all of its loading. No pause within a run is
        # as long as this. Older versions of onnxruntime pass it over.
        options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
        return options


def _run_error(path: Path, inputs: Mapping[str, DeviceTensor], error: Exception) -> BackendError:
    """Return the error for a run that failed; the words of onnxruntime stay its cause."""
    shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items() if isinstance(value, np.ndarray))
    text = str(error).lower()
    if isinstance(error, MemoryError) or "alloc" in text or "out of memory" in text:
        return BackendError(
            f"{path.name}: failed to run, out of memory ({shapes}); use shorter clips or smaller batches"
        )
    return BackendError(
        f"{path.name}: failed to run on {shapes or 'these inputs'}; the bundle's manifest has the names, types and "
        "shapes of its inputs (--debug shows the reason)"
    )


class _ArrayRunner:
    def __init__(self, session: Any, path: Path, options: Any) -> None:
        self._session, self._path, self._options = session, path, options

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        try:
            return list(self._session.run(None, dict(inputs), self._options))
        except Exception as error:
            raise _run_error(self._path, inputs, error) from error


class BoundRunner:
    """Runs a graph with IO binding, so that tensors between two graphs stay on the device."""

    def __init__(self, ort: Any, session: Any, path: Path, device: str, device_id: int = 0) -> None:
        self._ort, self._session, self._path = ort, session, path
        self._device, self._device_id = device, device_id
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        """Run the graph on arrays or OrtValues; return OrtValues on the device."""
        try:
            binding = self._session.io_binding()
            for name, value in inputs.items():
                if isinstance(value, np.ndarray):
                    # Not ascontiguousarray, which makes a vector of a scalar.
                    binding.bind_cpu_input(name, np.asarray(value, order="C"))
                else:
                    binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name, self._device, self._device_id)
            self._session.run_with_iobinding(binding)
            return list(binding.get_outputs())
        except Exception as error:
            raise _run_error(self._path, inputs, error) from error
