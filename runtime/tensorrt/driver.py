"""Queries the NVIDIA driver and its GPUs through the driver library alone, without any CUDA package.

TensorRT's runtimes may crash where there is no driver, so call this before any of them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import sys
from typing import Any

from dmcodec.errors import GpuError

_NAMES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A usable GPU.

    Attributes:
        name: the driver's name for it.
        compute_capability: "8.6", ...
        driver_cuda: newest CUDA version that the driver supports, as (major, minor).
    """

    name: str
    compute_capability: str
    driver_cuda: tuple[int, int]

    @property
    def architecture(self) -> str:
        """The GPU architecture: "sm_86", ... Engines of full TensorRT are bound to it."""
        return f"sm_{self.compute_capability.replace('.', '')}"


def probe_gpu(index: int = 0) -> Gpu:
    """Query the GPU `index`.

    Raises:
        GpuError: no driver, no such GPU, or a driver that fails.
    """
    driver = _load_driver()
    if (code := driver.cuInit(0)) != 0:
        raise GpuError(f"the NVIDIA driver can't be used (cuInit gives error {code}); check `nvidia-smi`")
    count = _integer(driver.cuDeviceGetCount)
    if index >= count:
        raise GpuError(f"no GPU {index}: the NVIDIA driver sees {count}; check `nvidia-smi` and CUDA_VISIBLE_DEVICES")
    version = _integer(driver.cuDriverGetVersion)
    name = ctypes.create_string_buffer(256)
    _check(driver.cuDeviceGetName(name, len(name), index))
    major, minor = (_integer(driver.cuDeviceGetAttribute, attribute, index) for attribute in (_MAJOR, _MINOR))
    driver_cuda = (version // 1000, version % 1000 // 10)
    return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", driver_cuda)


def free_bytes(index: int = 0) -> int:
    """Return the memory of the GPU `index` that no process uses.

    Raises:
        GpuError: as `probe_gpu`.
    """
    probe_gpu(index)
    driver = _load_driver()
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _check(driver.cuDeviceGet(ctypes.byref(device), index))
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))  # that of all CUDA libraries of the process
    try:
        _check(driver.cuCtxPushCurrent_v2(context))
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        try:
            _check(driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
        finally:
            _check(driver.cuCtxPopCurrent_v2(ctypes.byref(context)))
        return free.value
    finally:
        _check(driver.cuDevicePrimaryCtxRelease_v2(device))


def gpu_or_none() -> Gpu | None:
    """Query the first GPU; return None where no GPU is usable."""
    try:
        return probe_gpu()
    except GpuError:
        return None


def _load_driver() -> Any:
    for name in _NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise GpuError(f"no NVIDIA driver on this machine ({_NAMES[0]} isn't there); install it, or use another backend")


def _integer(function: Any, *arguments: int) -> int:
    value = ctypes.c_int()
    _check(function(ctypes.byref(value), *arguments))
    return value.value


def _check(code: int) -> None:
    if code != 0:
        raise GpuError(f"the NVIDIA driver can't list its GPUs (error {code}); check `nvidia-smi`")
