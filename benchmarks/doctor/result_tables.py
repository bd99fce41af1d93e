"""The findings and the GPU report of `dmcodec doctor` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmcodec.benchmarks.bench.options import Shape
from dmcodec.benchmarks.tables import Table, milliseconds, significant

from .figures import captures_cell
from .result import GOAL_CLIP_S, Finding


def findings_table(findings: Sequence[Finding]) -> Table:
    """Return the table of the installation."""
    rows = [(finding.name, finding.status, finding.found, finding.way_out) for finding in findings]
    return Table("Installation", ("part", "status", "found", "what to do"), tuple(rows), labels=4)


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """Return the tables of verification, speed and goals that have rows."""
    tables = [
        Table(
            "Verification",
            ("precision", "backend", "result", "latents SNR dB", "decoder SNR dB", "build s", "captured graphs"),
            tuple(_verification_row(run) for run in report["runs"]),
            labels=3,
        ),
        Table(
            "Speed",
            ("precision", "codec", "operation", "audio", "p50 ms", "RTF", "xRT", "equal codes", "SNR dB"),
            tuple(row for run in report["runs"] for row in _speed_rows(run)),
            labels=4,
            note="Equal codes and SNR: the backend compared with that codec, from the same input.",
        ),
        Table(
            "LSTM in TensorRT or in cuDNN",
            ("precision", "encode, times faster in cuDNN", "decode, times faster in cuDNN", "take"),
            tuple(
                (row["precision"], significant(row["encode"]), significant(row["decode"]), row["take"])
                for row in report["choices"]
            ),
            note=f"A clip of {GOAL_CLIP_S:g} s: engines alone, and engines with the LSTMs in ONNX Runtime.",
        ),
        Table(
            "Goals",
            ("goal", "backend", "needed", "encode", "decode", "met"),
            tuple(_goal_row(goal) for goal in report["goals"]),
            labels=2,
        ),
    ]
    return [table for table in tables if table.rows]


def _verification_row(run: Mapping[str, Any]) -> tuple[str, ...]:
    verify, build = run.get("verify"), run.get("build")
    build_s = f"{build['took_s']:.1f}" if build and build["ok"] else "-"
    value = verify["value"] if verify else None
    if not value:
        failed = next((step["reason"] for step in (build, verify) if step and not step["ok"]), None)
        return (run["precision"], run["side"], f"not run: {run['skipped'] or failed}", "-", "-", build_s, "-")
    worst = [min(case[name] for case in value["cases"]) for name in ("latents_snr_db", "decoder_snr_db")]
    captured = captures_cell((run.get("bench") or {}).get("value")) or "-"
    result = "passed" if value["passed"] else f"FAILED: {value['problems'][0]}"
    return (run["precision"], run["side"], result, *(f"{snr:.1f}" for snr in worst), build_s, captured)


def _speed_rows(run: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    bench = (run.get("bench") or {}).get("value")
    if not bench:
        return
    for entry in bench["measurements"]:
        if entry["duration_s"] != GOAL_CLIP_S and entry["batch"] == 1 and bench["reference_s"] == GOAL_CLIP_S:
            continue  # only the JSON has these
        yield (
            run["precision"],
            entry["side"],
            entry["operation"],
            str(Shape(entry["duration_s"], entry["batch"])),
            milliseconds(entry["timing"]["p50_s"]),
            significant(entry["speed"]["rtf"]),
            significant(entry["speed"]["xrt"]),
            *_agreement(bench, entry),
        )


def _agreement(bench: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return equal codes and SNR of the bundle against the codec of `entry`, at the shape of `entry`."""
    key = (entry["side"], entry["duration_s"], entry["batch"])
    for comparison in bench["comparisons"]:
        if (comparison["peer"], comparison["duration_s"], comparison["batch"]) == key:
            return f"{comparison['code_agreement']:.2%}", f"{comparison['waveform_snr_db']:.1f}"
    return "-", "-"


def _goal_row(goal: Mapping[str, Any]) -> tuple[str, ...]:
    reached = ["-" if goal[name] is None else significant(goal[name]) for name in ("encode", "decode")]
    met = {True: "yes", False: "no", None: "not measured"}[goal["met"]]
    return (goal["goal"], goal["side"] or "-", significant(goal["needed"]), *reached, met)
