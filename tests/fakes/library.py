"""A simulated TensorRT: the API's names, failures as None with a line in the log, and ONNX Runtime to compute."""

from __future__ import annotations

import enum
import functools
import json
import types
from typing import Any

import numpy as np
import onnx

from dmcodec.runtime.tensorrt.driver import Gpu
from fakes.device import GPU, FakeDevice, FaultError
from fakes.runtime import MAGIC, RtxRuntime, Runtime, Severity, session_of

# Not as types: the members are only known at run time.
IntEnum: Any = enum.IntEnum
IntFlag: Any = enum.IntFlag


def fake_tensorrt(
    device: FakeDevice | None = None, version: str = "10.16.1.11", gpu: Gpu | None = GPU, rtx: bool = False
) -> Any:
    """A module like `tensorrt` (or `tensorrt_rtx`), on a simulated GPU."""
    module: Any = types.ModuleType("fake_tensorrt")
    module.__version__ = version
    module.ILogger = type("ILogger", (), {"Severity": Severity, "__init__": lambda self: None})
    module.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
    module.nptype = lambda dtype: {"FLOAT": np.float32, "INT64": np.int64}[dtype.name]
    flags = ["TF32", "REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE", *(["REQUIRE_USER_ALLOCATION"] if rtx else [])]
    module.BuilderFlag = IntEnum("BuilderFlag", flags, start=0)
    module.NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", ["STRONGLY_TYPED"], start=1)
    module.HardwareCompatibilityLevel = IntEnum(
        "HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"], start=0
    )
    module.MemoryPoolType = IntEnum("MemoryPoolType", ["WORKSPACE"], start=0)
    module.ProfilingVerbosity = IntEnum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"], start=0)
    module.TensorIOMode = IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0)
    module.LayerInformationFormat = IntEnum("LayerInformationFormat", ["ONELINE", "JSON"], start=0)
    module.DataType = IntEnum("DataType", ["FLOAT", "INT64"], start=0)
    module.ExecutionContextAllocationStrategy = IntEnum(
        "ExecutionContextAllocationStrategy", ["STATIC", "USER_MANAGED"], start=0
    )
    module.PreviewFeature = IntEnum("PreviewFeature", ["RUNTIME_ACTIVATION_RESIZE_10_10"], start=0)
    module.ITimingCache = ITimingCache
    module.contexts = module.compilations = module.graph_launches = 0
    module.scratch_fails = False  # the size of scratch memory is 0, with the reason in the log only
    if rtx:
        module.CudaGraphStrategy = IntEnum("CudaGraphStrategy", ["DISABLED", "WHOLE_GRAPH_CAPTURE"], start=0)
        module.DynamicShapesKernelSpecializationStrategy = IntEnum(
            "DynamicShapesKernelSpecializationStrategy", ["LAZY", "EAGER", "NONE"], start=0
        )
        module.ComputeCapability = IntEnum("ComputeCapability", ["SM80", "SM86"], start=0)
        module.EngineValidity = IntEnum("EngineValidity", ["VALID", "INVALID"], start=0)
        module.EngineInvalidityDiagnostics = IntFlag("EngineInvalidityDiagnostics", {"UNSUPPORTED_CC": 2})
    module.Builder = functools.partial(Builder, module, gpu)
    module.OnnxParser = OnnxParser
    module.Runtime = functools.partial(RtxRuntime if rtx else Runtime, module, device, gpu)
    module.half = None  # whether layers report half precision; None: as the graph's weights
    module.unsupported_gpu = False
    return module


class ITimingCache:
    """What was timed: bytes that start with the GPU they belong to."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def combine(self, other: ITimingCache, _ignore_mismatch: bool) -> bool:
        self.content += other.content
        return True

    def serialize(self) -> bytes:
        return self.content


class IBuilderConfig:
    def __init__(self, module: Any) -> None:
        self._module = module
        self.set_flags = {"TF32"}
        self.profiles: list[IOptimizationProfile] = []
        self.workspace = 0
        self.hardware_compatibility_level: Any = None
        self.profiling_verbosity: Any = None
        self.progress_monitor: Any = None
        self.cache: ITimingCache | None = None
        self.preview: set[str] = set()

    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        (self.preview.add if enable else self.preview.discard)(feature.name)

    def set_flag(self, flag: Any) -> None:
        self.set_flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.set_flags.discard(flag.name)

    def set_memory_pool_limit(self, _pool: Any, size: int) -> None:
        self.workspace = size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> ITimingCache | None:
        return None if content.startswith(b"damaged") else ITimingCache(content)

    def set_timing_cache(self, cache: ITimingCache, _ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, *shapes: Any) -> None:
        self.shapes[name] = [list(shape) for shape in shapes]


class Builder:
    last_config: Any = None
    last_built: Any = None  # the configuration of the last build

    def __init__(self, module: Any, gpu: Gpu | None, logger: Any) -> None:
        self._module, self._gpu, self._logger = module, gpu, logger

    def create_network(self, flags: int) -> INetworkDefinition:
        if not flags & 1 << int(self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
            raise FaultError("a network that is not strongly typed: its precision is the builder's choice")
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        Builder.last_config = IBuilderConfig(self._module)
        return Builder.last_config

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        Builder.last_built = config
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building", None, 2)
            for step in range(2):
                if not config.progress_monitor.step_complete("Building", step):
                    return None
            config.progress_monitor.phase_finish("Building")
        if self._gpu is None:
            self._logger.log(Severity.ERROR, "no GPU to\nbuild for")
            return None
        if config.cache is not None:
            config.cache.content += b"timed;"
        half = self._module.half if self._module.half is not None else has_half(network.model)
        header = {
            "version": self._module.__version__,
            "architecture": self._gpu.architecture,
            "profiles": [profile.shapes for profile in config.profiles],
            "datatype": "Half" if half else "Float",
            "capturable": "REQUIRE_USER_ALLOCATION" in config.set_flags,
        }
        text = json.dumps(header).encode()
        return MAGIC + len(text).to_bytes(4, "little") + text + network.model


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


class INetworkDefinition:
    def __init__(self) -> None:
        self.model = b""
        self._inputs: list[_Named] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> _Named:
        return self._inputs[index]

    def fill(self, model: bytes) -> None:
        self.model = model
        self._inputs = [_Named(item.name) for item in session_of(model).get_inputs()]


class ParserError:
    def desc(self) -> str:
        return "not a\ngraph"

    def node_name(self) -> str:
        return "Elu_1"

    def node_operator(self) -> str:
        return "Elu"


class OnnxParser:
    num_errors = 1

    def __init__(self, network: INetworkDefinition, _logger: Any) -> None:
        self._network = network

    def parse(self, model: bytes) -> bool:
        if len(model) < 100:
            return False
        self._network.fill(model)
        return True

    def get_error(self, _index: int) -> ParserError:
        return ParserError()


def has_half(model: bytes) -> bool:
    """Whether a graph has weights in half precision."""
    graph = onnx.load_model_from_string(model).graph
    return any(item.data_type == onnx.TensorProto.FLOAT16 for item in graph.initializer)
