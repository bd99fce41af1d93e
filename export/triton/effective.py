"""The options that ONNX Runtime gets from the server, which are not all of those in a configuration.

The server's ONNX Runtime backend sets four options of CUDA anew after it has read those of the `cuda` accelerator: to
the model's parameter of the same name, or else to a default of its own. The rules here are those of its source code
(`ModelState::LoadModel` in onnxruntime.cc); a configuration that they would change is refused at export.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmcodec.errors import ExportError

# Option -> the value of a model's parameter -> the value that CUDA gets. The first is the default.
_CODES: Mapping[str, Mapping[str, str]] = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
}
# Options whose parameter is the value itself, and their defaults.
_PLAIN = {"gpu_mem_limit": str(2**64 - 1), "do_copy_in_default_stream": "1"}
_PRECISION_MODES = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "BF16": {"trt_bf16_enable": "1"}}
# Other parameters of the tensorrt accelerator that are used here; an unknown one keeps the model from loading.
_TENSORRT = (
    "trt_engine_cache_enable", "trt_engine_cache_path", "trt_timing_cache_enable", "trt_timing_cache_path",
    "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes",
)  # fmt: skip


def set_cuda_options(config: Any, options: Mapping[str, str]) -> None:
    """Write options of CUDA into a model's configuration, so that they are still there when a session is made.

    Raises:
        ExportError: the server can't be given one of them.
    """
    config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda", parameters=dict(options))
    for name, value in options.items():
        if name in _CODES:
            codes = {meaning: code for code, meaning in _CODES[name].items()}
            config.parameters[name].string_value = codes[value]
        elif name in _PLAIN:
            config.parameters[name].string_value = value
    effective = effective_options(config)["cuda"]
    if changed := [name for name, value in options.items() if effective.get(name) != value]:
        raise ExportError(
            f"{config.name}: the server would change the options {', '.join(changed)}. Nothing was written"
        )


def effective_options(config: Any) -> dict[str, dict[str, str]]:
    """Return the options that each of ONNX Runtime's GPU providers gets for a model on a GPU, by provider.

    Raises:
        ExportError: the server refuses the configuration.
    """
    found: dict[str, dict[str, str]] = {"cuda": {}}
    for accelerator in config.optimization.execution_accelerators.gpu_execution_accelerator:
        if accelerator.name == "cuda":
            found["cuda"] |= dict(accelerator.parameters)
        elif accelerator.name == "tensorrt":
            found["tensorrt"] = _tensorrt(config.name, dict(accelerator.parameters))
        else:
            raise ExportError(f"{config.name}: the server knows no accelerator {accelerator.name!r}")
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    for name, codes in _CODES.items():
        code = parameters.get(name, "0")
        if code not in codes:
            raise ExportError(f"{config.name}: the server knows no {name} {code!r}")
        found["cuda"][name] = codes[code]
    for name, default in _PLAIN.items():
        found["cuda"][name] = parameters.get(name, default)
    return found


def _tensorrt(model: str, parameters: dict[str, str]) -> dict[str, str]:
    mode = parameters.pop("precision_mode", "FP32")
    if mode not in _PRECISION_MODES:
        raise ExportError(f"{model}: the server knows no precision_mode {mode!r}")
    if unknown := [name for name in parameters if name not in _TENSORRT]:
        raise ExportError(f"{model}: the server's tensorrt accelerator has no parameter {', '.join(unknown)}")
    return {**_PRECISION_MODES[mode], **parameters}
