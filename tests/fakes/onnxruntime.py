"""onnxruntime with the GPU providers of its wheel, computed on the CPU: their options, their fallback, their prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from fakes.device import FakeDevice, FaultError

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
RTX = "NvTensorRTRTXExecutionProvider"
# Values that onnxruntime's parsers take. Those of CUDA and of the plugin are parse_string.h's: 0, 1, true, True, ...;
# the switches of TensorRT are compared with four words in onnxruntime_pybind_state.cc, and anything else is an error.
_SWITCH, _WORD, _NUMBER, _TEXT = "0|1|[Tt]rue|[Ff]alse", "[Tt]rue|[Ff]alse", r"\d+", ".+"
_SHAPES = r"\w+(:\d+(x\d+)*)(,\w+:\d+(x\d+)*)*"
ACCEPTED: Mapping[str, Mapping[str, str]] = {
    CPU: {},
    CUDA: {
        "device_id": _NUMBER,
        "cudnn_conv_algo_search": "EXHAUSTIVE|HEURISTIC|DEFAULT",
        "cudnn_conv1d_pad_to_nc1d": _SWITCH,
        "cudnn_conv_use_max_workspace": _SWITCH,
        "use_tf32": _SWITCH,
        "fuse_conv_bias": _SWITCH,
        "has_user_compute_stream": _SWITCH,
        "user_compute_stream": _NUMBER,
    },
    TENSORRT: {
        "device_id": _NUMBER,
        "trt_fp16_enable": _WORD,
        "trt_engine_cache_enable": _WORD,
        "trt_engine_cache_path": _TEXT,
        "trt_timing_cache_enable": _WORD,
        "trt_timing_cache_path": _TEXT,
        **{f"trt_profile_{bound}_shapes": _SHAPES for bound in ("min", "opt", "max")},
    },
    RTX: {  # tensorrt_rtx_provider_options.h of 0.5.0; a name that is not in it is an error
        "nv_runtime_cache_path": _TEXT,
        **{f"nv_profile_{bound}_shapes": _SHAPES for bound in ("min", "opt", "max")},
    },
}


def refused(provider: str, options: Mapping[str, str]) -> list[str]:
    """Return what the parser of a provider refuses, in its words."""
    known = ACCEPTED[provider]
    return [
        f"The value for the key '{name}' should not be {value!r}" if name in known else f"unknown option {name}"
        for name, value in options.items()
        if name not in known or not re.fullmatch(known[name], value)
    ]


class FakeRuntime:
    """A module like onnxruntime-gpu.

    Args:
        broken: the reason why CUDA can't be loaded; None where it can.
        device: the simulated GPU on whose streams bound addresses are computed.
        tensorrt: whether the TensorRT provider is there.
    """

    __version__, cuda_version = "1.31.1", "13.0"

    def __init__(self, broken: str | None = None, device: FakeDevice | None = None, tensorrt: bool = True) -> None:
        self.broken, self.device, self._tensorrt, self._preloaded = broken, device, tensorrt, False
        self.real = import_onnxruntime()
        self.SessionOptions, self.RunOptions = self.real.SessionOptions, self.real.RunOptions
        self.__file__ = self.real.__file__
        self.sessions: list[FakeSession] = []

    def preload_dlls(self) -> None:
        self._preloaded = True
        if self.broken:
            print(f"Failed to load libcublasLt.so.13: {self.broken}")  # noqa: T201 - as onnxruntime does
            print("Please follow https://onnxruntime.ai/docs/install/")  # noqa: T201

    def get_available_providers(self) -> list[str]:
        if not self._preloaded:  # the CUDA provider as a plugin: registered when its libraries are loaded
            return [CPU]
        return [*([TENSORRT] if self._tensorrt else []), CUDA, CPU]

    def _open(self, name: str, options: Mapping[str, str]) -> None:
        if wrong := refused(name, options):
            raise RuntimeError(f"[ERROR] [{name}] {wrong[0]}")
        if self.broken and name != CPU:
            raise RuntimeError(
                "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1992 onnxruntime::Provider&\n"
                f"[ONNXRuntimeError] : 1 : FAIL : Failed to load library: {self.broken}"
            )

    def InferenceSession(  # noqa: N802 - onnxruntime's name
        self, path: str, options: Any = None, providers: Any = None, enable_fallback: int = 1
    ) -> FakeSession:
        asked = [each if isinstance(each, tuple) else (each, {}) for each in providers]
        try:
            for name, values in asked:
                self._open(name, values)
        except RuntimeError as error:
            if not enable_fallback:
                raise
            print("*************** EP Error ***************")  # noqa: T201 - as onnxruntime does
            print(f"EP Error {error} when using {providers}")  # noqa: T201
            asked = [(CPU, {})]
        session = FakeSession(self, path, options, asked)
        self.sessions.append(session)
        return session


class FakeSession:
    """A session of the providers `asked`, computed by onnxruntime on the CPU."""

    def __init__(self, ort: FakeRuntime, path: str, options: Any, asked: list[tuple[str, dict[str, str]]]) -> None:
        self.ort, self.path, self.asked = ort, Path(path), asked
        self.real = ort.real.InferenceSession(path, options, providers=[CPU])
        self.shapes: list[dict[str, tuple[int, ...]]] = []  # of the inputs of each run

    @property
    def options(self) -> dict[str, str]:
        return self.asked[0][1]

    def get_providers(self) -> list[str]:
        return list(dict.fromkeys([*(name for name, _ in self.asked), CPU]))

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def run(self, names: Any, inputs: Mapping[str, Any], options: Any = None) -> Any:
        self.shapes.append({name: value.shape for name, value in inputs.items()})
        return self.real.run(names, dict(inputs), options)

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self)

    def run_with_iobinding(self, binding: FakeBinding, options: Any = None) -> None:
        binding.run()


class FakeBinding:
    """Inputs and outputs of a run; those by address are read and written when the stream comes to it."""

    def __init__(self, session: FakeSession) -> None:
        self._session, self._real = session, session.real.io_binding()
        self._inputs: dict[str, tuple[Any, tuple[int, ...], int]] = {}
        self._outputs: dict[str, tuple[Any, tuple[int, ...], int]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def bind_cpu_input(self, name: str, array: Any) -> None:
        self._shapes[name] = array.shape
        self._real.bind_cpu_input(name, array)

    def bind_ortvalue_input(self, name: str, value: Any) -> None:
        self._shapes[name] = tuple(value.shape())
        self._real.bind_ortvalue_input(name, value)

    def bind_input(self, name: str, device: str, _index: int, dtype: Any, shape: tuple[int, ...], address: int) -> None:
        if device != "cuda":
            raise FaultError(f"{name} is bound on {device}")
        self._shapes[name] = shape
        self._inputs[name] = (dtype, shape, address)

    def bind_output(
        self, name: str, device: str, _index: int = 0, dtype: Any = None, shape: Any = None, address: int | None = None
    ) -> None:
        if address is None:
            self._real.bind_output(name, "cpu")
        else:
            self._outputs[name] = (dtype, tuple(shape), address)

    def get_outputs(self) -> Any:
        return self._real.get_outputs()

    def run(self) -> None:
        session = self._session
        session.shapes.append(self._shapes)
        if not self._outputs:
            session.real.run_with_iobinding(self._real)
            return
        device, inputs, outputs = session.ort.device, dict(self._inputs), dict(self._outputs)
        assert device is not None

        def operation() -> None:
            values = {
                name: device.view(address, int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape).copy()
                for name, (dtype, shape, address) in inputs.items()
            }
            results = session.real.run(list(outputs), values)
            for (name, (_, shape, address)), result in zip(outputs.items(), results, strict=True):
                if result.shape != shape:
                    raise FaultError(f"{name} is {result.shape}, bound as {shape}")
                device.view(address, result.nbytes)[:] = np.ascontiguousarray(result).reshape(-1).view(np.uint8)

        device.enqueue(int(session.options["user_compute_stream"]), operation)
