"""The record of a measurement: the machine, the versions of its packages, and the time."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from dmcodec.cpus import usable_cpus

from .gpu import Gpu, find_gpus

# Packages whose versions every record holds, where they are installed.
PACKAGES = (
    "dmcodec", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "tensorrt", "tensorrt-cu13", "tensorrt-cu12",
    "tensorrt-rtx", "cuda-bindings",
)  # fmt: skip
_CPUINFO = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Hardware and software of a machine. Unknown values are None.

    Attributes:
        usable_cpus: CPUs that this process may use.
        load_average: over the last minute before the start.
        versions: by the name of the package.
    """

    cpu: str
    usable_cpus: int
    memory_bytes: int | None
    load_average: float | None
    os: str
    python: str
    versions: Mapping[str, str]
    gpus: tuple[Gpu, ...] = ()


def describe_machine(packages: tuple[str, ...]) -> Machine:
    """Describe this machine, with the versions of those `packages` that are installed."""
    return Machine(
        cpu=_cpu_model(),
        usable_cpus=usable_cpus(),
        memory_bytes=_memory_bytes(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        os=platform.platform(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={name: version for name in packages if (version := installed_version(name))},
        gpus=find_gpus(),
    )


def utc_now() -> str:
    """Return the time in UTC, in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution; None where it isn't installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
