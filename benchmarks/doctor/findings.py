"""What is installed on this machine, and what to do about the parts that are missing."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dmcodec import __version__
from dmcodec.benchmarks.gpu import find_gpus, open_reader
from dmcodec.benchmarks.machine import describe_machine, installed_version
from dmcodec.privacy import ONNXRUNTIME, wanted
from dmcodec.user_cache import user_cache_folder

from .gpu_packages import TENSORRT_PACKAGES, package_findings, plugin_finding, tensorrt_extra, tensorrt_words
from .probe import PROBE_CODE, PROBES, Outcome, run_json
from .result import MISSING, OK, PROBLEM, Examination, Finding

PROBE_TIMEOUT_S = 120.0
_NEEDED_BYTES = 2 << 30  # two bundles at full size, and the engines of one
_LEAN_PACKAGES = (
    "tensorrt-lean", "tensorrt-lean-cu13", "tensorrt-lean-cu12", "tensorrt-dispatch", "tensorrt-dispatch-cu13",
    "tensorrt-dispatch-cu12",
)  # fmt: skip
_INSTALL_DRIVER = "install the NVIDIA driver; start a container with its GPUs (--gpus all)"


def examine() -> Examination:
    """Examine the installation, each library in a new process."""
    with ThreadPoolExecutor(len(PROBES)) as pool:
        outcomes = dict(zip(PROBES, pool.map(_probe, PROBES), strict=True))
    findings = (*_machine(), *_onnxruntime(outcomes["onnxruntime"]), _torch(outcomes["torch"]))
    findings += (*_gpu(outcomes["driver"]), *_tensorrt(outcomes))
    findings += (plugin_finding(outcomes["rtx-plugin"], installed_version),)
    findings += (*package_findings(outcomes, installed_version), *_others())
    driver = outcomes["driver"]
    return Examination(findings, bool(driver.ok and driver.value["gpus"]), outcomes["torch"].ok)


def _probe(name: str) -> Outcome:
    return run_json([sys.executable, "-P", "-c", PROBE_CODE, name], PROBE_TIMEOUT_S)


def _machine() -> Iterator[Finding]:
    machine = describe_machine(())
    yield Finding("python", OK, f"{machine.python}, {platform.platform()}")
    yield Finding("dmcodec", OK, __version__)
    memory = "" if machine.memory_bytes is None else f", {machine.memory_bytes / 2**30:.1f} GiB"
    yield Finding("CPU", OK, f"{machine.cpu}, {machine.usable_cpus} usable{memory}")


def _onnxruntime(outcome: Outcome) -> Iterator[Finding]:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if installed_version(name)]
    if len(installed) > 1:
        way_out = '`pip uninstall onnxruntime onnxruntime-gpu`, then `pip install "dmcodec[cpu]"` or "dmcodec[gpu]"'
        yield Finding("onnxruntime", PROBLEM, "onnxruntime and onnxruntime-gpu overwrite each other's files", way_out)
        return
    if not outcome.ok:
        way_out = '`pip install "dmcodec[cpu]"`, or "dmcodec[gpu]" for CUDA'
        yield Finding("onnxruntime", PROBLEM if installed else MISSING, outcome.reason or "", way_out)
        return
    providers: list[str] = outcome.value["providers"]
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    yield Finding(
        "onnxruntime", OK, f"{outcome.value['version']} ({installed[0] if installed else 'unknown'}): {names}"
    )
    if wanted(ONNXRUNTIME):
        yield Finding("onnxruntime telemetry", OK, f"on, as {ONNXRUNTIME} asks for")
    else:
        yield Finding("onnxruntime telemetry", OK, "off")
    if "CUDAExecutionProvider" in providers:
        yield Finding("onnxruntime CUDA", OK, "built in; only --gpu tests whether it loads")
    else:
        way_out = '`pip uninstall onnxruntime`, then `pip install "dmcodec[gpu]"`'
        yield Finding("onnxruntime CUDA", MISSING, "this onnxruntime is built for the CPU only", way_out)


def _torch(outcome: Outcome) -> Finding:
    if not outcome.ok:
        status = PROBLEM if installed_version("torch") else MISSING
        return Finding(
            "torch", status, outcome.reason or "", 'needed to export and to compare: `pip install "dmcodec[export]"`'
        )
    value = outcome.value
    if value["cuda_available"]:
        return Finding("torch", OK, f"{value['version']}, CUDA {value['cuda']} on {value['gpu']}")
    return Finding("torch", OK, f"{value['version']}, on the CPU only")


def _gpu(driver: Outcome) -> Iterator[Finding]:
    gpus = find_gpus()
    if not driver.ok:
        yield Finding("NVIDIA driver", MISSING, driver.reason or "", _INSTALL_DRIVER)
    else:
        version = gpus[0].driver if gpus else "unknown version"
        yield Finding("NVIDIA driver", OK, f"{version}, runs CUDA up to {driver.value['cuda']}")
    if driver.ok and driver.value["gpus"]:
        names = ", ".join(gpu.name for gpu in gpus) or f"{driver.value['gpus']} of unknown name"
        yield Finding("GPU", OK, names)
    else:
        yield Finding("GPU", MISSING, "none that the driver sees", "the CPU backends need none")
    reader = open_reader()
    if reader is None:
        yield Finding("GPU memory and power", MISSING, "neither NVML nor nvidia-smi", "`pip install nvidia-ml-py`")
    else:
        yield Finding("GPU memory and power", OK, f"through {reader.source}")


def _tensorrt(outcomes: dict[str, Outcome]) -> Iterator[Finding]:
    driver = outcomes["driver"].value["cuda"] if outcomes["driver"].ok else None
    full = [name for name in ("tensorrt", *TENSORRT_PACKAGES) if installed_version(name)]
    lean = [name for name in _LEAN_PACKAGES if installed_version(name)]
    way_out = tensorrt_extra(driver)
    if outcomes["tensorrt"].ok:
        yield Finding(
            "tensorrt",
            OK,
            f"{outcomes['tensorrt'].value['version']} ({tensorrt_words(installed_version) or 'unknown wheel'})",
        )
    else:
        only = f"only {', '.join(lean)}, which can't build engines; " if lean else ""
        reason = outcomes["tensorrt"].reason or ""
        yield Finding("tensorrt", PROBLEM if full else MISSING, f"{only}{reason}", way_out)
    rtx = outcomes["tensorrt-rtx"]
    if rtx.ok:
        yield Finding("tensorrt-rtx", OK, rtx.value["version"])
    else:
        status = PROBLEM if installed_version("tensorrt-rtx") else MISSING
        yield Finding("tensorrt-rtx", status, rtx.reason or "", '`pip install "dmcodec[trt-rtx]"`')
    bindings = outcomes["cuda-bindings"]
    if bindings.ok:
        yield Finding("cuda-bindings", OK, installed_version("cuda-bindings") or bindings.value["version"])
    else:
        yield Finding(
            "cuda-bindings",
            MISSING,
            bindings.reason or "",
            'comes with "dmcodec[trt]", "dmcodec[trt-cu12]" and "dmcodec[trt-rtx]"',
        )


def _others() -> Iterator[Finding]:
    client = installed_version("tritonclient")
    way_out = "" if client else 'for --format triton: `pip install "dmcodec[triton]"`'
    yield Finding("tritonclient", OK if client else MISSING, client or "not installed", way_out)
    folder = _cache_folder()
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        yield Finding("cache", PROBLEM, f"{folder}: {error}", "set DMCODEC_CACHE to a folder that can be written to")
        return
    enough = free >= _NEEDED_BYTES and os.access(_existing(folder), os.W_OK)
    found = f"{folder}: {free / 2**30:.1f} GiB free"
    yield Finding("cache", OK if enough else PROBLEM, found, "" if enough else "2 GiB are needed; set DMCODEC_CACHE")


def _cache_folder() -> Path:
    try:
        return user_cache_folder()
    except ModuleNotFoundError:
        return Path.home() / ".cache" / "dmcodec"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def to_dicts(findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    """Return the findings as plain JSON values."""
    return [dataclasses.asdict(finding) for finding in findings]
