"""The result of `dmcodec evaluate` as tables of plain text, the same on a terminal and on the page."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

from rich.console import Console

from dmcodec.benchmarks.stability import Stability
from dmcodec.benchmarks.stability.result_tables import stability_tables
from dmcodec.benchmarks.tables import Table, count_of, markdown_table, print_tables

from .metrics import METRICS
from .published import Published
from .result import ColumnResult, EvaluationResult
from .statistics import ENOUGH_FILES, Estimate

NO_VALUE = "-"
PUBLISHED = "(published)"
MOST_METRICS = 9  # in one table: more columns don't fit beside each other
_EXAMPLES = 3
_MOST_REASONS = 40
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
    tables = quality_tables(result)
    tables += [*stability_tables(stability_of(result)), definition_table(result), codebook_table(result)]
    return [table for table in (*tables, failure_table(result)) if table.rows]


def stability_of(result: EvaluationResult) -> dict[str, Stability]:
    """Return the token stability of the columns that have it."""
    return {column.column.name: column.stability for column in result.columns if column.stability}


def quality_tables(result: EvaluationResult) -> list[Table]:
    """Return the quality table, cut into several where there are many metrics; the note is below the last one."""
    parts = quality_parts(result)
    tables = [dataclasses.replace(quality_table(part), note="") for part in parts]
    tables[1:] = [dataclasses.replace(table, title="Quality, more metrics") for table in tables[1:]]
    if tables:
        tables[-1] = dataclasses.replace(tables[-1], note=quality_table(result).note)
    return tables


def quality_parts(result: EvaluationResult) -> list[EvaluationResult]:
    """Return the result with some of its metrics each, as many as fit into one table.

    The originals are in a part only if they have one of its metrics, unless it is the only part.
    """
    count = math.ceil(len(result.metrics) / MOST_METRICS)
    if count < 2:
        return [result] if result.metrics else []
    size = math.ceil(len(result.metrics) / count)
    parts = [result.metrics[start : start + size] for start in range(0, len(result.metrics), size)]
    originals = [
        result.original if result.original and {*keys} & {*result.original.summary} else None for keys in parts
    ]
    return [
        dataclasses.replace(result, metrics=keys, original=original)
        for keys, original in zip(parts, originals, strict=True)
    ]


def quality_table(result: EvaluationResult) -> Table:
    """Return a row for each codec and a column for each metric, with the interval below each value.

    Rows of published figures come last; `published_name` marks them.
    """
    columns = (result.original, *result.columns) if result.original else result.columns
    rows = tuple((column.column.name, bitrate(column), *_cells(column, result)) for column in columns)
    rows += tuple((published_name(row), NO_VALUE, *_published_cells(row, result)) for row in result.published_rows)
    headings = [METRICS[key].heading for key in result.metrics]
    intervals = has_intervals(result)
    title = f"Quality over {count_of(len(result.clips), 'file')}"
    return Table(
        f"{title}, with 95 % confidence intervals" if intervals else title,
        ("codec", "kbit/s", *headings),
        rows,
        note="\n".join((*([f"{result.intervals}."] if intervals else ()), *result.remarks, *_published_notes(result))),
    )


def has_intervals(result: EvaluationResult) -> bool:
    """Return whether any figure has an interval that is shown: of enough files."""
    columns = (result.original, *result.columns) if result.original else result.columns
    return any(shown_interval(estimate) for column in columns for estimate in column.summary.values())


def shown_interval(estimate: Estimate) -> tuple[float, float] | None:
    """Return the interval of a figure; None where too few files have a value."""
    if estimate.low is None or estimate.high is None or estimate.files < ENOUGH_FILES:
        return None
    return estimate.low, estimate.high


def codebook_table(result: EvaluationResult) -> Table:
    """Return perplexity and dead entries of each level, of the codecs that ran here."""
    rows = [
        (
            column.column.name,
            str(level.level),
            f"{level.perplexity:,.1f}",
            _interval(level.low, level.high, 1) if column.codebooks.files >= ENOUGH_FILES else NO_VALUE,
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
                by_reason.setdefault((METRICS[key].label, _general(reason, clip, result.reference)), []).append(clip)
        labels: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for (label, reason), clips in by_reason.items():
            labels.setdefault((reason, tuple(clips)), []).append(label)
        rows += [
            (column.column.name, _labels(found, len(result.metrics)), str(len(clips)), reason, _examples(clips))
            for (reason, clips), found in labels.items()
        ]
    note = _LEFT_OUT
    if len(rows) > _MOST_REASONS:
        note += f" {len(rows) - _MOST_REASONS} more rows are in the JSON only (--json)."
    columns = ("codec", "metrics", "files", "reason", "examples")
    return Table("Failures", columns, tuple(rows[:_MOST_REASONS]), 5, note)


def _labels(labels: list[str], metrics: int) -> str:
    return "all" if len(labels) == metrics > 1 else ", ".join(labels)


def _general(reason: str, clip: str, reference: str) -> str:
    """Return a reason without the name of its file, so that files with one reason share a row."""
    name = re.escape(clip.rpartition("/")[2])
    folder = rf"{re.escape(reference)}/(?:\S*/)?|\S*/"
    return re.sub(rf"(?:{folder})?(?<!\w){name}\.\w+", "the file", reason)


def definition_table(result: EvaluationResult) -> Table:
    """Return the definition of each metric, with its mode and version."""
    rows = tuple((METRICS[key].label, result.definitions[key]) for key in result.metrics)
    return Table("Metrics", ("metric", "definition, mode and version"), rows, 2, _ARROWS)


def summary_lines(result: EvaluationResult) -> list[str]:
    """Return a few lines that name the reference and the codecs."""
    total_s = sum(duration for duration in result.clips.values() if duration)
    lines = [f"reference: {result.reference}, {count_of(len(result.clips), 'file')}, {total_s:,.1f} s"]
    levels: dict[tuple[str, str, str], list[int]] = {}
    for column in (each.column for each in result.columns):
        name = column.name.removesuffix(f", n_q {column.n_q}")
        found = levels.setdefault((name, column.source, column.description), [])
        if name != column.name and column.n_q is not None:
            found.append(column.n_q)
    for (name, source, description), swept in levels.items():
        head = f"{name}, n_q {', '.join(map(str, swept))}" if swept else name
        lines.append(f"{head}: {source} ({description})")
    return lines


def bitrate(column: ColumnResult) -> str:
    """Return the kilobits per second; a dash where they aren't known."""
    bits = column.column.bitrate_bps
    return NO_VALUE if bits is None else f"{bits / 1000:g}"


def published_name(row: Published) -> str:
    """Return the name of a row of published figures, with its mark."""
    return f"{row.name} {PUBLISHED}"


def _published_cells(row: Published, result: EvaluationResult) -> Iterator[str]:
    for key in result.metrics:
        yield METRICS[key].text(row.values[key]) if key in row.values else NO_VALUE


def _published_notes(result: EvaluationResult) -> Iterator[str]:
    """Yield what the marked rows are: the sources, the notes, and the figures without a column."""
    for source in dict.fromkeys(row.source for row in result.published):
        yield f"{PUBLISHED}: not measured here; files and settings may be others: {source}."
    notes = {
        (METRICS[key].label, note): None for row in result.published for key, note in row.notes.items()
        if key in result.metrics
    }  # fmt: skip
    yield from (f"{PUBLISHED}, {label}: {note}." for label, note in notes)
    keys = dict.fromkeys(key for row in result.published for key in row.values if key not in result.metrics)
    if keys:
        yield f"{PUBLISHED} also: {', '.join(METRICS[key].label for key in keys)}, which are not measured here."


def _examples(names: Sequence[str]) -> str:
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
    if interval := shown_interval(estimate):
        lines.append(_interval(*interval, decimals))
    if estimate.failed:
        lines.append(f"n = {estimate.files}")
    return "\n".join(lines)


def _interval(low: float | None, high: float | None, decimals: int) -> str:
    return NO_VALUE if low is None or high is None else f"{low:,.{decimals}f} to {high:,.{decimals}f}"
