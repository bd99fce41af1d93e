"""Where a result comes from, in words: the bundle, the machine, and how it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmcodec.benchmarks.gpu import Gpu
from dmcodec.benchmarks.results import BenchResult
from dmcodec.benchmarks.tables import MIB, Table


def summary_lines(result: BenchResult) -> list[str]:
    """A few lines that name the bundle and the machine."""
    bundle, machine = result.bundle, result.machine
    return [
        f"{bundle.path}: model {bundle.model_id}, {bundle.precision}, {bundle.size_bytes / MIB:,.0f} MiB",
        f"{bundle.backend} on {bundle.provider}, {result.threads} threads of {machine.usable_cpus} usable CPUs",
        f"{machine.cpu}, load average {_load(machine.load_average)} at the start",
        *(gpu_line(gpu) for gpu in machine.gpus),
    ]


def fact_tables(result: BenchResult) -> list[Table]:
    """Machine, bundle, provenance and parity as tables of name and value."""
    bundle, machine = result.bundle, result.machine
    memory = "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / 2**30:.1f} GiB"
    return [
        _facts(
            "Machine",
            {
                "CPU": machine.cpu,
                "usable CPUs": machine.usable_cpus,
                "threads of every side": result.threads,
                "memory": memory,
                "load average at the start": _load(machine.load_average),
                **{f"GPU {index}": gpu_line(gpu) for index, gpu in enumerate(machine.gpus)},
                "system": machine.os,
                "Python": machine.python,
                **machine.versions,
                "date": result.date,
                "command": result.command,
            },
        ),
        _facts(
            "Bundle",
            {
                "path": bundle.path,
                "model": bundle.model_id,
                "precision": bundle.precision,
                "graphs": f"{bundle.size_bytes / MIB:,.1f} MiB",
                "backend": f"{bundle.backend} on {bundle.provider}",
            },
        ),
        _facts("Provenance of the bundle", bundle.provenance),
        _facts("Parity with torch at export, worst case", bundle.parity),
    ]


def gpu_line(gpu: Gpu) -> str:
    """A GPU in words."""
    memory = "" if gpu.memory_bytes is None else f", {gpu.memory_bytes / MIB:,.0f} MiB"
    limit = "" if gpu.power_limit_w is None else f", {gpu.power_limit_w:,.0f} W at most"
    return f"{gpu.name}, driver {gpu.driver}{memory}{limit}"


def _facts(title: str, values: Mapping[str, Any]) -> Table:
    shown = {
        name: value for name, value in values.items() if value not in (None, "") and not isinstance(value, Mapping)
    }
    return Table(title, ("", ""), tuple((name, _text(value)) for name, value in shown.items()), labels=2)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _load(load_average: float | None) -> str:
    return "unknown" if load_average is None else f"{load_average:.2f}"
