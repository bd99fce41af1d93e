"""An evaluation as tables of plain text, the same for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from dmcodec.benchmarks.tables import Table, print_tables

from .metrics import METRICS
from .result import ColumnResult, EvaluationResult
from .statistics import Estimate

# FOLDED: An evaluation on a terminal.


NOTHING = "-"
_NAMED = 3
_NEVER = "Such a file counts in no figure of that metric and codec; it is never replaced by a number."
_ARROWS = "↑ higher is better, ↓ lower is better."


def evaluation_tables(result: EvaluationResult) -> list[Table]:
    """All tables, in reading order; those without rows are left out."""
    tables = [quality(result), definitions(result), codebooks(result), failures(result)]
    return [table for table in tables if table.rows]


def quality(result: EvaluationResult) -> Table:
    """A row for each codec, a column for each metric, with its interval below each figure."""
    columns = (result.original, *result.columns) if result.original else result.columns
    rows = tuple((column.column.name, bitrate(column), *_cells(column, result)) for column in columns)
    headings = [METRICS[key].heading for key in result.metrics]
    return Table(
        f"Quality over {_files(len(result.clips))}, with 95 % confidence intervals",
        ("codec", "kbit/s", *headings),
        rows,
        note="\n".join((f"{result.intervals}.", *result.remarks)),
    )


def codebooks(result: EvaluationResult) -> Table:
    """Perplexity and dead entries of each level, of the codecs that were run."""
    rows = [
        (
            column.column.name,
            str(level.level),
            f"{level.perplexity:,.1f}",
            _interval(level.low, level.high, 1),
            f"{level.used:,}",
            f"{level.dead:,}",
            f"{level.dead / level.entries:.1%}",
        )
        for column in result.columns
        if column.codebooks
        for level in column.codebooks.levels
    ]
    uses = [(column.column.name, column.codebooks) for column in result.columns if column.codebooks]
    counted = "; ".join(f"{name}: {use.frames:,} frames of {_files(use.files)}" for name, use in uses)
    return Table(
        "Codebook use",
        ("codec", "level", "perplexity", "95 % interval", "used", "dead", "dead %"),
        tuple(rows),
        note=f"Counted over all files ({counted}). Perplexity: 2^entropy of the codes; its interval: jackknife over "
        "files, t, on the entropy. Few frames leave entries unused that more frames would use.",
    )


def failures(result: EvaluationResult) -> Table:
    """What could not be measured, and why."""
    rows = []
    for column in (*result.columns, *((result.original,) if result.original else ())):
        found: dict[tuple[str, str], list[str]] = {}
        for clip, score in column.clips.items():
            for key, reason in score.failures.items():
                found.setdefault((METRICS[key].label, reason), []).append(clip)
        rows += [
            (column.column.name, label, str(len(clips)), reason, some(clips))
            for (label, reason), clips in found.items()
        ]
    return Table("What could not be measured", ("codec", "metric", "files", "why", "which"), tuple(rows), 5, _NEVER)


def definitions(result: EvaluationResult) -> Table:
    """What each metric is, in which mode and version."""
    rows = tuple((METRICS[key].label, result.definitions[key]) for key in result.metrics)
    return Table("What was measured", ("metric", "definition, mode and version"), rows, 2, _ARROWS)


def summary_lines(result: EvaluationResult) -> list[str]:
    """What was evaluated, in a few lines."""
    total_s = sum(duration for duration in result.clips.values() if duration)
    lines = [f"reference: {result.reference}, {_files(len(result.clips))}, {total_s:,.1f} s"]
    lines += [
        f"{column.column.name}: {column.column.source} ({column.column.description})" for column in result.columns
    ]
    return lines


def bitrate(column: ColumnResult) -> str:
    """Kilobits per second; a dash where it isn't known."""
    bits = column.column.bitrate_bps
    return NOTHING if bits is None else f"{bits / 1000:g}"


def some(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _cells(column: ColumnResult, result: EvaluationResult) -> Iterator[str]:
    for key in result.metrics:
        yield _cell(column.summary.get(key), METRICS[key].decimals)


def _cell(estimate: Estimate | None, decimals: int) -> str:
    if estimate is None:
        return NOTHING
    if estimate.value is None:
        return f"{NOTHING}\nn = 0"
    lines = [f"{estimate.value:.{decimals}f}"]
    if estimate.low is not None:
        lines.append(_interval(estimate.low, estimate.high, decimals))
    if estimate.failed:
        lines.append(f"n = {estimate.files}")
    return "\n".join(lines)


def _interval(low: float | None, high: float | None, decimals: int) -> str:
    return NOTHING if low is None or high is None else f"{low:,.{decimals}f} – {high:,.{decimals}f}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def print_evaluation(result: EvaluationResult, console: Console) -> None:
    """Prints what was evaluated, and every table."""
    print_tables("\n".join(summary_lines(result)), evaluation_tables(result), console)
