"""Probes of libraries, each in a new process: importing some of them crashes where a driver is missing.

A Python process that runs `PROBE_CODE` with the name of a probe prints what it finds as JSON. `run_json` runs
any process that prints JSON; a crash or a timeout becomes an `Outcome` with a reason.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

PROBE_CODE = "from dmcodec.benchmarks.doctor.probe import main; main()"
DMCODEC = (sys.executable, "-c", "from dmcodec.cli import main; main()")
_MAX_CHARACTERS = 300


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a process.

    Attributes:
        ok: whether the exit status is 0.
        value: the JSON document that it printed; a process that failed may have printed one, too.
        reason: why it failed, in one line.
        took_s: wall clock time.
    """

    ok: bool
    value: Any = None
    reason: str | None = None
    took_s: float = 0.0


def run_json(command: Sequence[str], timeout_s: float) -> Outcome:
    """Run a command that prints one JSON document, for at most `timeout_s` seconds."""
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Outcome(False, None, f"took longer than {timeout_s:g} s and was ended", time.perf_counter() - start)
    except OSError as error:
        return Outcome(False, None, f"could not be started: {error}")
    took_s = time.perf_counter() - start
    value = _parsed(done.stdout)
    if done.returncode:
        return Outcome(False, value, _reason(done), took_s)
    if value is None:
        return Outcome(False, None, f"printed no JSON: {done.stdout[:_MAX_CHARACTERS]!r}", took_s)
    return Outcome(True, value, None, took_s)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    # typer and rich draw frames around some errors.
    lines = [text for line in done.stderr.splitlines() if any(map(str.isalpha, text := line.strip("│╭╰─╮╯ ")))]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    message = errors[-1] if errors else (lines[-1].strip()[-_MAX_CHARACTERS:] if lines else "")
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return f"crashed with {name}" + (f" ({message})" if message else "")
    return message or f"exit status {done.returncode}"


def _onnxruntime() -> dict[str, Any]:
    from dmcodec.runtime.onnxruntime_import import load_module

    onnxruntime = load_module()
    from dmcodec.runtime.providers import tensorrt_conflict

    return {
        "version": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "cuda": str(getattr(onnxruntime, "cuda_version", "") or ""),
        "tensorrt_conflict": tensorrt_conflict(onnxruntime),
    }


def _rtx_plugin() -> dict[str, Any]:
    """Register the plugin provider with onnxruntime, as a codec does."""
    import importlib.metadata

    from dmcodec.runtime.nv_tensorrt_rtx import find_device
    from dmcodec.runtime.onnxruntime_import import load_module

    device = find_device(load_module(), 0)
    version = importlib.metadata.version("onnxruntime-ep-nv-tensorrt-rtx")
    return {"version": version, "device": f"{device.ep_vendor} {device.ep_name}"}


def _torch() -> dict[str, Any]:
    import torch

    available = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if available else None
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cuda_available": available, "gpu": name}


def _driver() -> dict[str, Any]:
    """Return the newest CUDA version that the driver runs, and the number of GPUs that it sees."""
    library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    if code := library.cuInit(0):
        raise RuntimeError(f"cuInit gives error {code}")
    version, count = ctypes.c_int(), ctypes.c_int()
    for function, value in ((library.cuDriverGetVersion, version), (library.cuDeviceGetCount, count)):
        if code := function(ctypes.byref(value)):
            raise RuntimeError(f"the driver gives error {code}")
    return {"cuda": f"{version.value // 1000}.{version.value % 1000 // 10}", "gpus": count.value}


def _module_version(module: str) -> Callable[[], dict[str, Any]]:
    def probe() -> dict[str, Any]:
        return {"version": str(getattr(importlib.import_module(module), "__version__", "unknown"))}

    return probe


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "onnxruntime": _onnxruntime,
    "torch": _torch,
    "driver": _driver,
    "tensorrt": _module_version("tensorrt"),
    "tensorrt-rtx": _module_version("tensorrt_rtx"),
    "cuda-bindings": _module_version("cuda.bindings"),
    "rtx-plugin": _rtx_plugin,
}


def main() -> None:
    """Run the probe that the only argument names: print its values, or the error in one line."""
    try:
        sys.stdout.write(json.dumps(PROBES[sys.argv[1]]()))
    except Exception as error:  # noqa: BLE001 - importing a library can raise any error
        sys.stderr.write(f"error: {type(error).__name__}: {' '.join(str(error).split())}\n")
        sys.exit(1)
