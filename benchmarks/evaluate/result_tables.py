"""The result of `dmcodec evaluate` as tables of plain text, the same on a terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from dmcodec.benchmarks.stability import Stability
from dmcodec.benchmarks.stability.result_tables import stability_tables
from dmcodec.benchmarks.tables import Table, count_of, markdown_table, print_tables

from .metrics import METRICS
from .result import ColumnResult, EvaluationResult
from .statistics import Estimate

NO_VALUE = "-"
_EXAMPLES = 3
_LEFT_OUT = "Such a file is left out of the statistics of that metric and codec; no number replaces it."
_ARROWS = "↑ higher is better, ↓ lower is better."


def print_evaluation(result: EvaluationResult, console: Console) -> None:
    """Print the reference, the codecs and all tables."""
    print_tables("\n".join(summary_lines(result)), evaluation_tables(result), console)


def markdown_page(result: EvaluationResult) -> str:
    """Return the reference, the codecs and all tables as Markdown."""
    head = "".join(f"- {line}\n" for line in summary_lines(result))
    tables = "\n".join(markdown_table(table) for table in evaluation_tables(result))
    return f"# dmcodec evaluate\n\n{head}\n{tables}"


def evaluation_tables(result: EvaluationResult) -> list[Table]:
    """Return all tables that have rows, in reading order."""
    tables = [quality_table(result)] if result.metrics else []
    tables += [*stability_tables(stability_of(result)), definition_table(result), codebook_table(result)]
    return [table for table in (*tables, failure_table(result)) if table.rows]


def stability_of(result: EvaluationResult) -> dict[str, Stability]:
    """Return the token stability of the columns that have it."""
    return {column.column.name: column.stability for column in result.columns if column.stability}


def quality_table(result: EvaluationResult) -> Table:
    """Return a row for each codec and a column for each metric, with the interval below each value."""
    columns = (result.original, *result.columns) if result.original else result.columns
    rows = tuple((column.column.name, bitrate(column), *_cells(column, result)) for column in columns)
    headings = [METRICS[key].heading for key in result.metrics]
    return Table(
        f"Quality over {count_of(len(result.clips), 'file')}, with 95 % confidence intervals",
        ("codec", "kbit/s", *headings),
        rows,
        note="\n".join((f"{result.intervals}.", *result.remarks)),
    )


def codebook_table(result: EvaluationResult) -> Table:
    """Return perplexity and dead entries of each level, of the codecs that ran here."""
    rows = [
        (
            column.column.name,
            str(level.level),
            f"{level.perplexity:,.1f}",
            _interval(level.low, level.high, 1),
            f"{level.used:,}",
            f"{level.dead:,}",
            f"{100 * level.dead / level.entries:.1f}",
        )
        for column in result.columns
        if column.codebooks
        for level in column.codebooks.levels
    ]
    uses = [(column.column.name, column.codebooks) for column in result.columns if column.codebooks]
    counted = "; ".join(f"{name}: {use.frames:,} frames of {count_of(use.files, 'file')}" for name, use in uses)
    return Table(
        "Codebook use",
        ("codec", "level", "perplexity", "95 % interval", "used", "dead", "dead %"),
        tuple(rows),
        note=f"Counted over all files ({counted}). Perplexity = 2^entropy of the codes; its interval comes from a "
        "jackknife over files on the entropy, with Student's t. Dead: entries that no frame uses; with few frames, "
        "some entries stay unused that more frames would use.",
    )


def failure_table(result: EvaluationResult) -> Table:
    """Return the metrics without a value, with the reasons."""
    rows = []
    for column in (*result.columns, *((result.original,) if result.original else ())):
        by_reason: dict[tuple[str, str], list[str]] = {}
        for clip, score in column.clips.items():
            for key, reason in score.failures.items():
                by_reason.setdefault((METRICS[key].label, reason), []).append(clip)
        rows += [
            (column.column.name, label, str(len(clips)), reason, _examples(clips))
            for (label, reason), clips in by_reason.items()
        ]
    return Table("Failures", ("codec", "metric", "files", "reason", "examples"), tuple(rows), 5, _LEFT_OUT)


def definition_table(result: EvaluationResult) -> Table:
    """Return the definition of each metric, with its mode and version."""
    rows = tuple((METRICS[key].label, result.definitions[key]) for key in result.metrics)
    return Table("Metrics", ("metric", "definition, mode and version"), rows, 2, _ARROWS)


def summary_lines(result: EvaluationResult) -> list[str]:
    """Return a few lines that name the reference and the codecs."""
    total_s = sum(duration for duration in result.clips.values() if duration)
    lines = [f"reference: {result.reference}, {count_of(len(result.clips), 'file')}, {total_s:,.1f} s"]
    lines += [
        f"{column.column.name}: {column.column.source} ({column.column.description})" for column in result.columns
    ]
    return lines


def bitrate(column: ColumnResult) -> str:
    """Return the kilobits per second; a dash where they aren't known."""
    bits = column.column.bitrate_bps
    return NO_VALUE if bits is None else f"{bits / 1000:g}"


def _examples(names: list[str]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")


def _cells(column: ColumnResult, result: EvaluationResult) -> Iterator[str]:
    for key in result.metrics:
        yield _cell(column.summary.get(key), METRICS[key].decimals)


def _cell(estimate: Estimate | None, decimals: int) -> str:
    if estimate is None:
        return NO_VALUE
    if estimate.value is None:
        return f"{NO_VALUE}\nn = 0"
    lines = [f"{estimate.value:.{decimals}f}"]
    if estimate.low is not None:
        lines.append(_interval(estimate.low, estimate.high, decimals))
    if estimate.failed:
        lines.append(f"n = {estimate.files}")
    return "\n".join(lines)


def _interval(low: float | None, high: float | None, decimals: int) -> str:
    return NO_VALUE if low is None or high is None else f"{low:,.{decimals}f} – {high:,.{decimals}f}"
