"""The ONNX Runtime backend, on the CPU, on CUDA, or on its TensorRT provider.

ONNX Runtime falls back to the CPU without an error if a provider can't be loaded, so each session is asked which
provider it uses. The GPU code was written from the documentation of the API and has not been run on a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import GraphSpec
from dmcodec.cpus import default_threads
from dmcodec.errors import ArgumentError, BackendError, ProviderError
from dmcodec.precision import FP16

from .backend import DeviceTensor, Runner
from .onnxruntime_import import import_onnxruntime

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
# The RVQ: TensorRT computes float32 in TF32, whose 10-bit mantissa changes codes, and the provider can't disable it.
_NEVER_ON_TENSORRT = ("quantizer", "dequantizer")
MAX_THREADS = 1024
_WARNINGS_AND_UP = 3


class OnnxRuntimeBackend:
    """Loads graphs into ONNX Runtime sessions.

    Args:
        provider: "cpu", "cuda", or "tensorrt" (encoder and decoder; the RVQ then runs on CUDA).
        threads: threads of one operator; by default `dmcodec.cpus.default_threads`, and one for streams.
        shrink_memory: give the memory of each run back to the system after it; on the CPU only.
        device_id: number of the GPU.

    Raises:
        ArgumentError: an unknown provider, a number of threads out of range, or shrink_memory on a GPU.
        MissingDependencyError: onnxruntime is not installed, or two distributions of it are.
        ProviderError: this onnxruntime does not have the provider.
    """

    name = "onnxruntime"

    def __init__(
        self, provider: str = "cpu", threads: int | None = None, shrink_memory: bool = False, device_id: int = 0
    ) -> None:
        if provider not in PROVIDERS:
            raise ArgumentError(f"provider {provider!r} is not known to onnxruntime; use one of {', '.join(PROVIDERS)}")
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise ArgumentError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
        if shrink_memory and provider != "cpu":
            raise ArgumentError(f"shrink_memory is for provider cpu, not {provider}; leave it out")
        self.provider = provider
        self.threads = threads or default_threads()
        self.shrink_memory, self.device_id = shrink_memory, device_id
        self.single_threaded_streams = threads is None
        self._chosen_threads = threads
        self._ort = import_onnxruntime()
        if provider != "cpu":
            _prepare_gpu(self._ort, provider)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments: the process that unpickles has its own onnxruntime, and its own number of CPUs."""
        return type(self), (self.provider, self._chosen_threads, self.shrink_memory, self.device_id)

    @property
    def version(self) -> str:
        """Version of onnxruntime."""
        return str(self._ort.__version__)

    def load(self, path: Path, spec: GraphSpec) -> Runner:
        """Load a graph; see `dmcodec.runtime.backend.Backend`."""
        provider = "cuda" if self.provider == "tensorrt" and path.stem in _NEVER_ON_TENSORRT else self.provider
        try:
            session = self._ort.InferenceSession(
                str(path),
                self._session_options(),
                providers=_provider_options(provider, spec.precision, self.device_id),
            )
        except Exception as error:
            raise BackendError(
                f"{path}: onnxruntime {self.version} can't load this graph; "
                "update onnxruntime, or export the bundle again (--debug shows its reason)"
            ) from error
        wanted = PROVIDERS[provider]
        if session.get_providers()[0] != wanted:
            raise ProviderError(
                f"{path}: {wanted} could not be loaded, onnxruntime fell back to {session.get_providers()[0]}; "
                'check the NVIDIA driver and `pip install "dmcodec[gpu]"`, or use provider cpu'
            )
        if self.provider == "cpu":
            return _ArrayRunner(session, path, self._run_options())
        return BoundRunner(self._ort, session, path, device="cuda", device_id=self.device_id)

    def single_threaded(self) -> OnnxRuntimeBackend | None:
        """Return a backend with one thread per run; None on a GPU, or if this one has one thread."""
        if self.provider != "cpu" or self.threads == 1:
            return None
        return OnnxRuntimeBackend(self.provider, 1, self.shrink_memory)

    def to_array(self, value: DeviceTensor) -> NDArray[Any]:
        """Return an output as an array in host memory."""
        array: NDArray[Any] = value if isinstance(value, np.ndarray) else value.numpy()
        return array

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
        return options


def _provider_options(provider: str, precision: str, device_id: int = 0) -> list[Any]:
    """Return the providers of a graph with their options, in order of preference."""
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    cuda = {
        "device_id": str(device_id),
        "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE, the default, searches again for each new length
        "use_tf32": "0",  # a 10-bit mantissa changes codes
    }
    chosen = [(PROVIDERS["cuda"], cuda)]
    if provider == "tensorrt":
        half = "1" if precision == FP16.name else "0"
        chosen.insert(0, (PROVIDERS["tensorrt"], {"device_id": str(device_id), "trt_fp16_enable": half}))
    return chosen


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
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name, self._device, self._device_id)
            self._session.run_with_iobinding(binding)
            return list(binding.get_outputs())
        except Exception as error:
            raise _run_error(self._path, inputs, error) from error


def _prepare_gpu(ort: Any, provider: str) -> None:
    available = ort.get_available_providers()
    if PROVIDERS[provider] not in available:
        lacks = "is built for the CPU only" if PROVIDERS["cuda"] not in available else "has no TensorRT provider"
        raise ProviderError(
            f"provider {provider}: the installed onnxruntime {ort.__version__} {lacks}; "
            'run `pip uninstall onnxruntime`, then `pip install "dmcodec[gpu]"`, or use provider cpu'
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
