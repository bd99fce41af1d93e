"""The runtime half of TensorRT's API: deserialise an engine, query it, and run it on a stream.

A plan is bound to the library version that built it and, except for generic plans of RTX, to a GPU architecture.
Check the driver first (`dmcodec.runtime.tensorrt.driver`): without one, TensorRT's runtimes may crash.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from dmcodec.errors import BackendError, EngineError

from .library import Library, with_log
from .runtime_cache import RuntimeCache

# Bits of `get_engine_validity`'s diagnostics, and their meaning.
_DIAGNOSTICS = {
    "VERSION_MISMATCH": "it was built by another version",
    "UNSUPPORTED_CC": "this GPU's compute capability isn't supported",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for it; update the driver",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it",
    "MALFORMED_ENGINE": "the file is damaged",
    "CUDA_ERROR": "CUDA can't be used here",
}


class Engine:
    """A deserialised engine."""

    def __init__(
        self, library: Library, plan: bytes, name: str, host_code: bool = False, cache: RuntimeCache | None = None
    ) -> None:
        """Deserialise a plan.

        Args:
            library: of the flavour and version that built the plan.
            plan: the serialised engine, already checked against its record.
            name: the plan's file or graph, for messages.
            host_code: allow code for the host in the plan; version-compatible plans hold some.
            cache: what RTX compiled before.

        Raises:
            EngineError: the library can't run the plan here.
        """
        self.library, self.name, self._cache = library, name, cache
        self._context_lock = threading.Lock()
        with library.errors_as(EngineError, f"{name}: {library.flavour} {library.version} failed") as lines:
            self._runtime = library.checked(
                library.module.Runtime(library.logger), EngineError, f"{name}: no runtime", lines
            )
            if host_code and hasattr(self._runtime, "engine_host_code_allowed"):
                self._runtime.engine_host_code_allowed = True
            self._check_validity(plan)
            self._engine = library.checked(
                self._runtime.deserialize_cuda_engine(plan),
                EngineError,
                f"{name}: this engine can't be loaded; "
                "build it again with `dmcodec export --format trt --bundle BUNDLE --rebuild`",
                lines,
            )

    def _check_validity(self, plan: bytes) -> None:
        if not hasattr(self._runtime, "get_engine_validity"):
            return
        validity, diagnostics = self._runtime.get_engine_validity(plan)
        if validity != self.library.member("EngineValidity", "INVALID"):
            return
        reasons = []
        for member, reason in _DIAGNOSTICS.items():
            bit = self.library.member("EngineInvalidityDiagnostics", member)
            if bit is not None and int(diagnostics) & int(bit):
                reasons.append(reason)
        library = self.library
        raise EngineError(
            f"{self.name}: {library.flavour} {library.version} can't run this engine here: "
            f"{'; '.join(reasons) or 'no reason given'}"
        )

    @property
    def outputs(self) -> dict[str, np.dtype[Any]]:
        """Types of the outputs by name, in the engine's order."""
        engine, mode = self._engine, self.library.member("TensorIOMode", "OUTPUT")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return {name: self.dtype(name) for name in names if engine.get_tensor_mode(name) == mode}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type of an input or output."""
        found: np.dtype[Any] = np.dtype(self.library.module.nptype(self._engine.get_tensor_dtype(name)))
        return found

    def information(self) -> Any:
        """Return the engine inspector's description of all layers as JSON values; None where it gives none."""
        with self.library.errors_as(BackendError, f"{self.name}: can't be inspected"):
            inspector = self._engine.create_engine_inspector()
            form = self.library.member("LayerInformationFormat", "JSON")
            text = inspector.get_engine_information(form) if inspector is not None else None
            return json.loads(text) if text else None

    @property
    def captures_itself(self) -> bool:
        """Whether the library captures and launches the CUDA graph of a fixed context: RTX does."""
        return self.library.member("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE") is not None

    def context(self, fixed: bool = False) -> Context:
        """Create an execution context. The caller provides its scratch memory.

        Args:
            fixed: it will run one shape at addresses that never change.
        """
        library = self.library
        with library.errors_as(BackendError, f"{self.name}: no execution context") as lines:
            strategy = library.member("ExecutionContextAllocationStrategy", "USER_MANAGED")
            with self._context_lock:  # TensorRT is thread-safe only across contexts
                config = self._configuration(strategy, fixed)
                created = self._engine.create_execution_context(strategy if config is None else config)
            context = library.checked(created, BackendError, f"{self.name}: can't make an execution context", lines)
            return Context(self, context, config)

    def _configuration(self, strategy: Any, fixed: bool) -> Any | None:
        """Return the runtime configuration of a context; None for full TensorRT, whose own has nothing to choose.

        A fixed context compiles kernels for its shape at once, since a captured graph would keep the general ones that
        others begin with. Contexts of changing shapes and addresses are not captured.
        """
        if not self.captures_itself:
            return None
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if fixed:
            config.cuda_graph_strategy = self.library.member("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE")
            eager = self.library.member("DynamicShapesKernelSpecializationStrategy", "EAGER")
            config.dynamic_shapes_kernel_specialization_strategy = eager
        if self._cache is not None:
            self._cache.attach(config)
        return config


class Context:
    """An execution context: runs an engine on one stream at a time. Not thread-safe."""

    def __init__(self, engine: Engine, context: Any, config: Any = None) -> None:
        self._engine, self._context, self._config = engine, context, config
        self._profile: int | None = None

    def prepare(self, profile: int, shapes: Mapping[str, tuple[int, ...]], stream: int) -> int:
        """Set the optimization profile and the shapes of all inputs.

        Returns:
            Size in bytes of the scratch memory that a run needs.
        """
        context, library, name = self._context, self._engine.library, self._engine.name
        with library.errors_as(BackendError, f"{name}: failed to prepare") as lines:
            if self._profile != profile:
                chosen = context.set_optimization_profile_async(profile, stream)
                library.checked(chosen, BackendError, f"{name}: profile {profile} can't be used", lines)
                self._profile = profile
            for tensor, shape in shapes.items():
                done = context.set_input_shape(tensor, shape)
                library.checked(done, BackendError, f"{name}: input {tensor} of shape {shape} is refused", lines)
            if missing := context.infer_shapes():
                raise BackendError(f"{name}: no shapes for {', '.join(missing)}")
            size: int = context.update_device_memory_size_for_shapes()
            if size == 0 and any("ERROR" in line.severity for line in lines):  # 0 bytes may also mean a failure
                raise BackendError(with_log(f"{name}: the size of its scratch memory is not known", lines))
            return size

    def can_capture(self, stream: int) -> bool:
        """Return whether `run` can be captured into a CUDA graph; true where the library can't tell."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return True if ask is None else bool(ask(stream))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an output for the inputs' shapes."""
        return tuple(self._context.get_tensor_shape(name))

    def bind(self, addresses: Mapping[str, int], scratch: int, scratch_bytes: int) -> None:
        """Set the memory of the next runs; it must stay allocated until they are done.

        Args:
            addresses: device memory of each input and output.
            scratch: address of the scratch memory.
            scratch_bytes: size of the scratch memory.
        """
        context, library, name = self._context, self._engine.library, self._engine.name
        with library.errors_as(BackendError, f"{name}: failed to take its memory") as lines:
            if scratch_bytes:
                context.set_device_memory(scratch, scratch_bytes)
            for tensor, address in addresses.items():
                done = context.set_tensor_address(tensor, address)
                library.checked(done, BackendError, f"{name}: no address for {tensor}", lines)

    def run(self, stream: int) -> None:
        """Enqueue a run on a CUDA stream, with the shapes and memory that were set."""
        library, name = self._engine.library, self._engine.name
        with library.errors_as(BackendError, f"{name}: failed to run") as lines:
            library.checked(self._context.execute_async_v3(stream), BackendError, f"{name}: failed to run", lines)
