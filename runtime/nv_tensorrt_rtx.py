"""ONNX Runtime's plugin provider for TensorRT-RTX, which stands beside an onnxruntime for the CPU.

The package onnxruntime-ep-nv-tensorrt-rtx brings the provider, TensorRT-RTX and the CUDA runtime. Registration and its
errors were run without a GPU; sessions were not yet run on one.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from dmcodec.errors import MissingDependencyError, ProviderError
from dmcodec.runtime.tensorrt.driver import probe_gpu

from .providers import RTX_PLUGIN, reason_of

MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
_INSTALL = '`pip install "dmcodec[rtx-plugin]"`'


def find_device(ort: Any, device_id: int) -> Any:
    """Register the plugin with onnxruntime, once in a process; return the GPU `device_id` as the plugin's device.

    Raises:
        MissingDependencyError: the plugin is not installed, or onnxruntime is older than 1.24.
        GpuError: no NVIDIA driver, or no such GPU.
        ProviderError: the plugin can't be loaded, or does not support the GPU.
    """
    plugin = _import_plugin()
    if not hasattr(ort, "register_execution_provider_library") or not hasattr(ort, "get_ep_devices"):
        raise MissingDependencyError(
            f"provider {RTX_PLUGIN} needs onnxruntime 1.24, and {ort.__version__} is installed; run {_INSTALL}"
        )
    probe_gpu(device_id)  # with a clear error where there is none
    _register(ort, plugin)
    devices = [device for device in ort.get_ep_devices() if device.ep_name == plugin.get_ep_name()]
    if device_id >= len(devices):
        raise ProviderError(
            f"provider {RTX_PLUGIN}: it supports {len(devices)} of the GPUs here, and GPU {device_id} was asked for; "
            "use another device_id, or provider cuda"
        )
    return devices[device_id]


def _import_plugin() -> Any:
    try:
        return importlib.import_module(MODULE)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == MODULE
        problem = "is not installed" if absent else f"is installed, but can't be imported ({error})"
        raise MissingDependencyError(
            f"provider {RTX_PLUGIN}: onnxruntime-ep-nv-tensorrt-rtx {problem}; run {_INSTALL}"
        ) from error


@functools.cache  # a second registration in a process is an error
def _register(ort: Any, plugin: Any) -> None:
    try:
        ort.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())
    except Exception as error:
        if "already registered" in str(error).lower():  # by the application
            return
        raise ProviderError(
            f"provider {RTX_PLUGIN}: the plugin can't be loaded ({reason_of(error)}); check the NVIDIA driver and "
            f"{_INSTALL}"
        ) from error
