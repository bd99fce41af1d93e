"""The figures of a GPU report as a part of a documentation page, with an empty place for each that isn't measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dmcodec.benchmarks.codecs.registry import BUNDLE_PEERS, runs_on_gpu
from dmcodec.benchmarks.codecs.torch import TORCH_COMPILE, TORCH_EAGER
from dmcodec.benchmarks.tables import Table, milliseconds, significant
from dmcodec.errors import ArgumentError, detail
from dmcodec.files import write_bytes
from dmcodec.precision import FP16, FP32

from .options import BATCH, STREAMS
from .result import GOAL_CLIP_S, check_choices, check_goals

BEGIN, END = "<!-- figures: dmcodec doctor --gpu --publish -->", "<!-- end of the figures -->"
NOT_MEASURED = "Not measured yet."
PRECISIONS = (FP32.name, FP16.name)
# Names in the table of what runs in torch: side, as it begins in a report, and precision.
_TORCH = ((f"{TORCH_EAGER}-cuda", FP32.name), (f"{TORCH_COMPILE}-cuda", FP16.name))


def figures_tables(report: Mapping[str, Any] | None) -> list[Table]:
    """Return the tables of a report; without one, all their places are empty."""
    runs = report["runs"] if report else []
    benches = [run["bench"]["value"] for run in runs if run.get("bench") and run["bench"]["ok"]]
    return [
        Table(
            "Speed and verification",
            (
                "precision", "runs on", "verified", "encode 10 s, ms", "decode 10 s, ms", f"encode xRT, batch {BATCH}",
                f"decode xRT, batch {BATCH}", f"p99 push of {STREAMS} streams, ms", "captured graphs",
            ),
            tuple(_speed_rows(runs)),
            labels=3,
        ),
        Table(
            "LSTM in TensorRT or in cuDNN",
            ("precision", "encode, times faster in cuDNN", "decode, times faster in cuDNN", "take"),
            tuple(_choice_rows(benches)),
            labels=1,
        ),
        Table(
            "Goals",
            ("goal", "runs on", "needed", "encode", "decode", "met"),
            tuple(_goal_rows(benches)),
            labels=2,
        ),
    ]  # fmt: skip


def figures_markdown(report: Mapping[str, Any] | None) -> str:
    """Return the tables with a line that says where and when they were measured, between the markers."""
    lines = [BEGIN, "", _origin(report), ""]
    for table in figures_tables(report):
        align = ["---" if index < table.labels else "---:" for index in range(len(table.columns))]
        rows = [table.columns, align, *table.rows]
        lines += [f"**{table.title}**", "", *map(_line, rows), ""]
    return "\n".join([*lines, END])


def _line(cells: Sequence[str]) -> str:
    return "|".join(["", *(f" {cell} " if cell else " " for cell in cells), ""])


def check_page(page: Path) -> None:
    """Raise ArgumentError if a page can't take the figures, before they are measured for hours."""
    _parts(page)


def publish(report: Mapping[str, Any], page: Path) -> None:
    """Write the figures of a report into a page, in place of those between its markers.

    Raises:
        ArgumentError: the page can't be read, or has no markers.
        OutputError: it can't be written.
    """
    before, after = _parts(page)
    write_bytes(page, f"{before}{figures_markdown(report)}{after}".encode())


def _parts(page: Path) -> tuple[str, str]:
    """Return what stands before and after the figures."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ArgumentError(f"--publish {page}: can't be read ({detail(error)})") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ArgumentError(
            f"--publish {page}: has no place for the figures; write the lines `{BEGIN}` and `{END}` where they go"
        )
    return before, after


def _origin(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return NOT_MEASURED
    machine = report["machine"]
    gpus = ", ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]) or "GPU of unknown name"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return f"Measured on {report['date'][:10]}: {gpus}; {versions}. Command: `{report['command']}`."


def _speed_rows(runs: list[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    benches = [(run["precision"], run["bench"]["value"]) for run in runs if (run.get("bench") or {}).get("value")]
    for prefix, precision in _TORCH:
        found = next((bench for _, bench in benches if _side(bench, prefix)), None)
        yield precision, prefix, "reference" if found else "", *_times(found, prefix), "", ""
    for precision in PRECISIONS:
        for side in filter(runs_on_gpu, BUNDLE_PEERS):
            run = next((run for run in runs if (run["precision"], run["side"]) == (precision, side)), {})
            bench = (run.get("bench") or {}).get("value")
            yield precision, side, _verified(run), *_times(bench, side), _stream_p99(bench), captures_cell(bench)


def _verified(run: Mapping[str, Any]) -> str:
    value = (run.get("verify") or {}).get("value")
    if value:
        return "yes" if value["passed"] else "NO"
    return "did not run" if run and not run["skipped"] else ""


def _side(bench: Mapping[str, Any], prefix: str) -> list[Mapping[str, Any]]:
    return [entry for entry in bench["measurements"] if entry["side"].startswith(prefix)]


def _times(bench: Mapping[str, Any] | None, side: str) -> tuple[str, str, str, str]:
    """Return the cells of encode and decode: milliseconds of a clip, and xRT of a batch."""
    entries = _side(bench, side) if bench else []

    def cell(operation: str, batch: int) -> str:
        for entry in entries:
            if (entry["operation"], entry["duration_s"], entry["batch"]) == (operation, GOAL_CLIP_S, batch):
                timing, speed = entry["timing"], entry["speed"]
                return milliseconds(timing["p50_s"]) if batch == 1 else significant(speed["xrt"])
        return ""

    return cell("encode", 1), cell("decode", 1), cell("encode", BATCH), cell("decode", BATCH)


def _stream_p99(bench: Mapping[str, Any] | None) -> str:
    levels = ((bench or {}).get("live") or {}).get("levels", [])
    found = [level["p99_s"] for level in levels if (level["side"], level["streams"]) == ("pooled", STREAMS)]
    return milliseconds(max(found)) if found else ""


def captures_cell(bench: Mapping[str, Any] | None) -> str:
    """Return how many fixed shapes ran from captured graphs, and how many could not be captured."""
    counts = (bench or {}).get("captures")
    if not counts:
        return ""
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    return f"{counts['captured'] + counts['by_library']}{failed}"


def _choice_rows(benches: list[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    choices = {choice["precision"]: choice for choice in check_choices(benches)}
    for precision in PRECISIONS:
        choice = choices.get(precision)
        if choice is None:
            yield precision, "", "", ""
        else:
            yield precision, significant(choice["encode"]), significant(choice["decode"]), choice["take"]


def _goal_rows(benches: list[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in check_goals(benches):
        reached = ("" if row[name] is None else significant(row[name]) for name in ("encode", "decode"))
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        yield row["goal"], row["side"] or "", significant(row["needed"]), *reached, met
