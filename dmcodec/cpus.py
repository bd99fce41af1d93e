"""The number of CPUs that this process may use, and of threads that suits them: the only place that asks the system."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

_ROOT = Path("/")
_BLAS_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"


def let_blas_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let the idle threads of numpy's OpenBLAS sleep at once, unless the variable is set or numpy is imported already.

    They would spin for about 0.1 s after the import of numpy, one on each CPU but one. dmcodec's own work is not in
    BLAS; products of large matrices take as long as before.
    """
    if "numpy" not in sys.modules:
        environment.setdefault(_BLAS_TIMEOUT, "4")  # 2**4 cycles, the least that OpenBLAS takes


def usable_cpus(root: Path = _ROOT) -> int:
    """Return the number of CPUs that this process may use: its affinity, limited by the quota of its containers.

    A quota of 1.5 CPUs counts as 1: the kernel stops all threads of a group that used up its quota, and threads that
    wait for each other at every step lose more than the half CPU.

    Args:
        root: of the file system, with `proc` and `sys/fs/cgroup`.
    """
    quota = cpu_quota(root)
    available = _available_cpus()
    return available if quota is None else max(1, min(available, int(quota)))


def default_threads(root: Path = _ROOT) -> int:
    """Return the default number of threads of one computation: `usable_cpus`, limited by OMP_NUM_THREADS.

    Of a list for nested levels, the first number counts. What is no positive number is passed over.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    limit = int(first) if re.fullmatch(r"[0-9]{1,9}", first) else 0
    return min(usable_cpus(root), limit) if limit else usable_cpus(root)


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Return the smallest CPU quota of this process's cgroups (version 1 and 2) and those above, in CPUs.

    None where there is no quota, no cgroup, or nothing can be read.
    """
    quotas = [quota for folder in _cpu_groups(root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _available_cpus() -> int:
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on; also obeys PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the cgroups that limit this process's CPU time, from the innermost to the mount point."""
    groups = _own_groups(_lines(root / "proc/self/cgroup"))
    for line in _lines(root / "proc/self/mountinfo"):
        # "31 23 0:28 ROOT MOUNT_POINT OPTIONS [TAGS] - TYPE SOURCE SUPER_OPTIONS"
        fields, _, rest = line.partition(" - ")
        parts, kind = fields.split(), rest.split()
        if len(parts) < 5 or len(kind) < 3:
            continue
        version_1 = kind[0] == "cgroup" and "cpu" in kind[2].split(",")
        if not version_1 and kind[0] != "cgroup2":
            continue
        inside = groups.get("cpu" if version_1 else "")
        if inside is not None:
            mount = root / _unescaped(parts[4]).lstrip("/")
            yield from _folders(mount, _below(inside, _unescaped(parts[3])))


def _own_groups(lines: list[str]) -> Mapping[str, str]:
    """Return the process's cgroup by controller, from lines `ID:CONTROLLERS:PATH`; "" is that of version 2."""
    groups = {}
    for line in lines:
        if line.count(":") >= 2:
            _, controllers, path = line.split(":", 2)
            groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _below(path: str, mounted: str) -> str:
    """Return the part of a cgroup's path below the cgroup that is mounted; "" where it lies elsewhere.

    Without a namespace of its own, a container sees the host's path, and its own cgroup as the mount point.
    """
    if mounted == "/":
        return path.strip("/")
    return path[len(mounted) :].strip("/") if f"{path}/".startswith(f"{mounted}/") else ""


def _folders(mount: Path, below: str) -> Iterator[Path]:
    parts = [part for part in below.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _quota(folder: Path) -> float | None:
    """Return the CPU quota of one cgroup in CPUs; None where it has none or its files can't be read."""
    limit = " ".join(_lines(folder / "cpu.max")).split()  # version 2: "QUOTA PERIOD" or "max PERIOD"
    if not limit:
        limit = [" ".join(_lines(folder / name)) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    try:
        quota, period = float(limit[0]), float(limit[1])
    except (ValueError, IndexError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def set_torch_threads(threads: int | None) -> None:
    """Set the number of torch's CPU threads, for the whole process.

    With None, torch keeps its own number where that is at most `default_threads`: torch does not know quotas.
    """
    import torch

    torch.set_num_threads(threads or min(torch.get_num_threads(), default_threads()))
