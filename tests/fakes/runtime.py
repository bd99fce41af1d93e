"""The runtime half of the simulated TensorRT: engines and contexts, which ONNX Runtime computes."""

from __future__ import annotations

import enum
import functools
import json
import time
from typing import Any

import numpy as np

from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.runtime.tensorrt.driver import Gpu
from fakes.device import FakeDevice, FaultError

MAGIC = b"fake plan "
SCRATCH_BYTES = 1000


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class Runtime:
    def __init__(self, module: Any, device: FakeDevice | None, gpu: Gpu | None, logger: Any) -> None:
        if device is None or gpu is None:
            raise FaultError("a runtime was made without a driver: that may crash")
        self._module, self._device, self._gpu, self._logger = module, device, gpu, logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if not plan.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "Magic tag does not match")
            return None
        size = int.from_bytes(plan[len(MAGIC) : len(MAGIC) + 4], "little")
        start = len(MAGIC) + 4
        header = json.loads(plan[start : start + size])
        if header["version"] != self._module.__version__:
            self._logger.log(Severity.ERROR, f"built by {header['version']}")
            return None
        kind = RtxEngine if hasattr(self._module, "CudaGraphStrategy") else ICudaEngine
        return kind(self._module, self._device, self._logger, header, plan[start + size :])


class RtxRuntime(Runtime):
    def get_engine_validity(self, _plan: bytes) -> tuple[Any, int]:
        if self._module.unsupported_gpu:
            return self._module.EngineValidity.INVALID, 2
        return self._module.EngineValidity.VALID, 0


class ICudaEngine:
    def __init__(self, module: Any, device: FakeDevice, logger: Any, header: dict[str, Any], model: bytes) -> None:
        self.module, self.device, self.logger, self.header = module, device, logger, header
        self.session = session_of(model)
        self.inputs = {item.name: item for item in self.session.get_inputs()}
        self.outputs = {item.name: item for item in self.session.get_outputs()}
        self.contexts = 0

    @property
    def num_io_tensors(self) -> int:
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> Any:
        return self.module.TensorIOMode.INPUT if name in self.inputs else self.module.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        kind = {**self.inputs, **self.outputs}[name].type
        return self.module.DataType.INT64 if kind == "tensor(int64)" else self.module.DataType.FLOAT

    def create_execution_context(self, strategy: Any) -> IExecutionContext:
        config = strategy if isinstance(strategy, IRuntimeConfig) else None
        chosen = strategy if config is None else config.strategy
        if chosen is None or chosen.name != "USER_MANAGED":
            raise FaultError("the context allocates by itself")
        time.sleep(0.001)  # a real one takes long, so that races show
        self.contexts += 1
        self.module.contexts += 1
        if config is None:
            return IExecutionContext(self)
        config.compile(self)
        return RtxExecutionContext(self, config)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)


class RtxEngine(ICudaEngine):
    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig(self.module)


class IRuntimeConfig:
    def __init__(self, module: Any) -> None:
        self._module = module
        self.strategy: Any = None
        self.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = module.DynamicShapesKernelSpecializationStrategy.LAZY
        self.runtime_cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache(self._module)

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.runtime_cache = cache
        return True

    def compile(self, engine: ICudaEngine) -> None:
        """Compile what the cache does not hold."""
        key = f"{hash(engine.session)} {self.dynamic_shapes_kernel_specialization_strategy.name}"
        if self.runtime_cache is None or key not in self.runtime_cache.kernels:
            self._module.compilations += 1
        if self.runtime_cache is not None:
            self.runtime_cache.kernels.add(key)


class IRuntimeCache:
    def __init__(self, module: Any) -> None:
        self._head = f"{module.__version__}\n"
        self.kernels: set[str] = set()

    def deserialize(self, content: bytes) -> bool:
        text = content.decode(errors="replace")
        if not text.startswith(self._head):
            return False
        self.kernels = set(text.removeprefix(self._head).splitlines())
        return True

    def serialize(self) -> bytes:
        return (self._head + "\n".join(sorted(self.kernels))).encode()


class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, form: Any) -> str:
        layer = {"Name": "conv", "Outputs": [{"Name": "x", "Datatype": self._engine.header["datatype"]}]}
        return json.dumps({"Layers": [layer, "no details"] if form.name != "JSON" else [layer]})


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None

    def set_optimization_profile_async(self, index: int, _stream: int) -> bool:
        self._profile, self._shapes = index, {}
        return 0 <= index < len(self._engine.header["profiles"])

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, largest = self._engine.header["profiles"][self._profile][name]
        if len(shape) != len(least) or not all(a <= b <= c for a, b, c in zip(least, shape, largest, strict=True)):
            self._engine.logger.log(Severity.ERROR, f"{name}: {shape} is not within the profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._engine.inputs if name not in self._shapes]

    def update_device_memory_size_for_shapes(self) -> int:
        if self._engine.module.scratch_fails:
            self._engine.logger.log(Severity.ERROR, "the shapes are not known")
            return 0
        return SCRATCH_BYTES * max(max(shape, default=1) for shape in self._shapes.values())

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _output_shapes(self._engine.session, tuple(sorted(self._shapes.items())))[name]

    def set_device_memory(self, address: int, size: int) -> None:
        _check_alignment(address)
        self._scratch = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        _check_alignment(address)
        self._addresses[name] = address
        return name in self._engine.inputs or name in self._engine.outputs

    def execute_async_v3(self, stream: int) -> bool:
        if self._profile < 0 or self.infer_shapes():
            raise FaultError("run without shapes")
        device, shapes, addresses = self._engine.device, dict(self._shapes), dict(self._addresses)
        scratch, needed = self._scratch, self.update_device_memory_size_for_shapes()
        outputs = {name: self.get_tensor_shape(name) for name in self._engine.outputs}

        def operation() -> None:
            if shapes != self._shapes and stream in captured:
                raise FaultError("a context was altered after its run was captured")
            if scratch is None or scratch[1] < needed:
                raise FaultError("too little scratch memory")
            values = {}
            for name, shape in shapes.items():
                dtype = np.dtype(self._engine.module.nptype(self._engine.get_tensor_dtype(name)))
                size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                values[name] = device.view(addresses[name], size).view(dtype).reshape(shape).copy()
            results = self._engine.session.run(list(outputs), values)
            device.view(*scratch)[:] = 0xFF
            for (name, shape), result in zip(outputs.items(), results, strict=True):
                if result.shape != shape:
                    raise FaultError(f"{name} has another shape than was said before")
                device.view(addresses[name], result.nbytes)[:] = np.ascontiguousarray(result).reshape(-1).view(np.uint8)

        captured = {stream} if device.is_capturing(stream) else set()
        device.enqueue(stream, operation)
        return True


class RtxExecutionContext(IExecutionContext):
    """Captures by itself; a stream can be captured where the engine was built for it."""

    def __init__(self, engine: ICudaEngine, config: IRuntimeConfig) -> None:
        super().__init__(engine)
        self._config = config
        self._last: Any = None

    def is_stream_capturable(self, _stream: int) -> bool:
        return bool(self._engine.header["capturable"])

    def execute_async_v3(self, stream: int) -> bool:
        if self._engine.device.is_capturing(stream):
            raise FaultError("captured from outside what the library captures itself")
        now = (dict(self._shapes), dict(self._addresses), self._scratch)
        whole = self._config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
        if whole and self._config.dynamic_shapes_kernel_specialization_strategy.name != "EAGER":
            raise FaultError("a captured graph keeps the kernels that it was captured with")
        if whole and self._engine.header["capturable"] and now == self._last:
            self._engine.module.graph_launches += 1
        self._last = now
        return super().execute_async_v3(stream)


def _check_alignment(address: int) -> None:
    if address % 256:
        raise FaultError("an address that is not aligned to 256 bytes")


@functools.cache
def session_of(model: bytes) -> Any:
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return import_onnxruntime().InferenceSession(model, options)


@functools.cache
def _output_shapes(session: Any, shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, tuple[int, ...]]:
    values = {}
    for item in session.get_inputs():
        dtype = np.int64 if item.type == "tensor(int64)" else np.float32
        values[item.name] = np.zeros(dict(shapes)[item.name], dtype)
        if item.name == "lengths":
            values[item.name] += 1
    results = session.run(None, values)
    return {item.name: result.shape for item, result in zip(session.get_outputs(), results, strict=True)}
