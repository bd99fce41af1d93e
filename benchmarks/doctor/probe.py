"""The process that looks at one library: importing some of them crashes where a driver is missing.

`python -m dmcodec.benchmarks.doctor.probe NAME` prints what it finds as JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any


def _onnxruntime() -> dict[str, Any]:
    import onnxruntime

    return {"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}


def _torch() -> dict[str, Any]:
    import torch

    available = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if available else None
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cuda_available": available, "gpu": name}


def _driver() -> dict[str, Any]:
    """The CUDA driver itself: newest CUDA that it runs, and how many GPUs it sees."""
    library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    if code := library.cuInit(0):
        raise RuntimeError(f"cuInit gives error {code}")
    version, count = ctypes.c_int(), ctypes.c_int()
    for function, value in ((library.cuDriverGetVersion, version), (library.cuDeviceGetCount, count)):
        if code := function(ctypes.byref(value)):
            raise RuntimeError(f"the driver gives error {code}")
    return {"cuda": f"{version.value // 1000}.{version.value % 1000 // 10}", "gpus": count.value}


def _imported(module: str) -> Callable[[], dict[str, Any]]:
    def look() -> dict[str, Any]:
        return {"version": str(getattr(importlib.import_module(module), "__version__", "unknown"))}

    return look


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "driver": _driver,
    "tensorrt": _imported("tensorrt"),
    "tensorrt-rtx": _imported("tensorrt_rtx"),
    "cuda-bindings": _imported("cuda.bindings"),
}


def main() -> None:
    """Prints the facts, or ends with the error in one line."""
    try:
        sys.stdout.write(json.dumps(PROBES[sys.argv[1]]()))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the library
        sys.stderr.write(f"error: {type(error).__name__}: {' '.join(str(error).split())}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
