"""Where a result comes from, in words: the bundle, the machine, and how it was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from dmcodec.benchmarks.gpu import Gpu
from dmcodec.benchmarks.tables import MIB, Table, milliseconds, print_tables, significant

from .options import Shape
from .result import BenchResult, Measurement, MemoryResult


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


def result_tables(result: BenchResult) -> list[Table]:
    """All tables of a result, in reading order; those without rows are left out."""
    tables = [
        speedups(result),
        steady_state(result),
        stream(result),
        graphs(result),
        peers(result),
        engines(result),
        memory(result),
    ]
    return [table for table in tables if table.rows]


def speedups(result: BenchResult) -> Table:
    """The bundle against its peers, with the fidelity beside the ratio."""
    rows = [
        (
            comparison.peer,
            str(Shape(comparison.duration_s, comparison.batch)),
            f"{comparison.encode_speedup:.2f}x",
            f"{comparison.decode_speedup:.2f}x",
            f"{comparison.code_agreement:.2%}",
            f"{comparison.waveform_snr_db:.1f}",
        )
        for comparison in result.comparisons
    ]
    rows += [(failure.peer, "not measured", "-", "-", "-", "-") for failure in result.peer_failures]
    return Table(
        f"How many times faster {result.side} is",
        ("than", "audio", "encode", "decode", "equal codes", "SNR dB"),
        tuple(rows),
        labels=2,
        note=f"Run in turn, A B A B: median of {_times(result.rounds, 'pair')}. SNR: both decode the same codes.",
    )


def steady_state(result: BenchResult) -> Table:
    """Times, RTF and xRT of every side, operation and shape."""
    return Table(
        "Steady state",
        ("side", "work", "audio", "first ms", "p50 ms", "p95 ms", "p99 ms", "RTF", "xRT"),
        tuple(_steady_row(measurement) for measurement in _by_operation(result.measurements)),
        labels=3,
        note=f"n = {result.rounds}. RTF = compute time / audio time; xRT = its inverse (of a batch: the throughput).",
    )


def stream(result: BenchResult) -> Table:
    """Streaming decode: pushes, and when the first audio is there."""
    rows: list[tuple[str, ...]] = []
    if (found := result.stream) is not None:
        total_s = found.tokens_needed_s + found.first_audio_compute_s
        row = (found.push.p50_s, found.push.p95_s, found.push.p99_s, found.first_audio_compute_s, total_s)
        figures = [milliseconds(value) for value in row]
        speed = (significant(found.speed.rtf), significant(found.speed.xrt))
        rows.append((milliseconds(found.chunk_s), milliseconds(found.look_ahead_s), *figures, *speed))
    return Table(
        f"Streaming decode of {result.side}",
        ("chunk ms", "look-ahead ms", "push p50 ms", "p95 ms", "p99 ms", "first audio ms", "+ tokens ms", "RTF", "xRT"),
        tuple(rows),
        labels=0,
        note="First audio: compute time until it is there; + tokens: and the speech whose tokens must have come first.",
    )


def graphs(result: BenchResult) -> Table:
    """Each graph's load, first run and steady state."""
    rows = [
        (
            graph.graph,
            milliseconds(graph.load_s),
            milliseconds(graph.first_run_s),
            milliseconds(graph.timing.p50_s),
            milliseconds(graph.timing.p95_s),
            milliseconds(graph.timing.p99_s),
            significant(graph.speed.rtf),
            significant(graph.speed.xrt),
        )
        for graph in result.graphs
    ]
    return Table(
        f"Graphs of {result.side}, {Shape(result.reference_s, 1)}",
        ("graph", "load ms", "first ms", "p50 ms", "p95 ms", "p99 ms", "RTF", "xRT"),
        tuple(rows),
        note=f"n = {result.rounds}. Opening and verifying the bundle took {milliseconds(result.open_s)} ms.",
    )


def peers(result: BenchResult) -> Table:
    """What loading and compiling the peers took, or why one could not be measured."""
    rows = [
        (loading.peer, f"{loading.load_s:.2f}", "-" if loading.compile_s is None else f"{loading.compile_s:.1f}")
        for loading in result.peer_loading
    ]
    reasons = [f"{failure.peer} could not be measured: {failure.reason}" for failure in result.peer_failures]
    note = "Load: building the model and checking its weights."
    return Table(
        "Peers before their first run", ("side", "load s", "compile s"), tuple(rows), note=" ".join([note, *reasons])
    )


def engines(result: BenchResult) -> Table:
    """TensorRT's engines, and what building them took."""
    rows = [
        (
            engine.graph,
            engine.precision,
            f"{engine.library}, {', '.join(engine.architectures)}",
            f"{engine.size_bytes / MIB:,.1f}",
            "-" if engine.build_s is None else f"{engine.build_s:.1f}",
        )
        for engine in result.engines
    ]
    return Table(
        "Engines, built before",
        ("graph", "precision", "by and for", "MiB", "build s"),
        tuple(rows),
        labels=3,
        note="No other figure holds the time of the build.",
    )


def memory(result: BenchResult) -> Table:
    """Peak memory of each side and operation; where a GPU was read its memory and power, too."""
    reasons = dict.fromkeys(entry.reason for entry in result.memory if entry.reason)
    notes = ["Peak resident memory of a fresh process that does only this, libraries included."]
    rows: list[tuple[str, ...]] = [(entry.side, entry.operation, _mib(entry.peak_rss_bytes)) for entry in result.memory]
    columns: tuple[str, ...] = ("side", "work", "MiB")
    sources = {entry.gpu_source for entry in result.memory if entry.gpu_source}
    if sources:
        columns += ("GPU MiB", "W", "J per s of audio")
        rows = [row + _gpu_cells(entry) for row, entry in zip(rows, result.memory, strict=True)]
        notes.append(
            f"GPU: the most in use beyond what was before; the mean power of repeated runs; by {', '.join(sources)}."
        )
    return Table(
        f"Peak memory{' and power' if sources else ''}, {Shape(result.reference_s, 1)}",
        columns,
        tuple(rows),
        labels=2,
        note=" ".join([*notes, *reasons]),
    )


def _gpu_cells(entry: MemoryResult) -> tuple[str, ...]:
    figures = (entry.power_w, entry.energy_j_per_audio_s)
    return (_mib(entry.peak_gpu_bytes), *("-" if value is None else f"{value:,.3g}" for value in figures))


def _mib(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / MIB:,.0f}"


def _steady_row(measurement: Measurement) -> tuple[str, ...]:
    timing, speed = measurement.timing, measurement.speed
    return (
        measurement.side,
        measurement.operation,
        str(Shape(measurement.duration_s, measurement.batch)),
        milliseconds(measurement.first_run_s),
        milliseconds(timing.p50_s),
        milliseconds(timing.p95_s),
        milliseconds(timing.p99_s),
        significant(speed.rtf),
        significant(speed.xrt),
    )


def _by_operation(measurements: Iterable[Measurement]) -> list[Measurement]:
    return sorted(measurements, key=lambda measurement: measurement.operation != "encode")


def _times(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def print_result(result: BenchResult, console: Console) -> None:
    """Prints what was measured, on what, and every table."""
    print_tables("\n".join(summary_lines(result)), result_tables(result), console)
