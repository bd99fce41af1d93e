"""The listening page: one HTML file with tables, players and a blind test, which loads nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from html import escape
from pathlib import Path

from dmcodec.benchmarks.page_paths import PathFilter, last_part, paths_in_command, without_paths_in_command
from dmcodec.benchmarks.pages import html_page, html_table
from dmcodec.benchmarks.stability.figure import stability_figure
from dmcodec.benchmarks.stability.result_tables import stability_tables
from dmcodec.benchmarks.tables import Table
from dmcodec.errors import MissingDependencyError

from .blind import BLIND_SCRIPT, BLIND_STYLE, blind_html
from .listening import clips_html
from .metrics import METRICS
from .page_assets import SCRIPT, STYLE
from .plots import plots_html
from .result import ColumnResult, Evaluation, EvaluationResult
from .result_tables import (
    codebook_table,
    definition_table,
    failure_table,
    has_intervals,
    quality_parts,
    quality_table,
    quality_tables,
    stability_of,
    summary_lines,
)
from .sounds import SOUNDS, Sound

_BOLD = (
    "Bold: the best mean of each metric, the original aside. It does not say that the difference is more than chance: "
)
_FOLDED_ROWS = 12
_FOLDED_CODES = 30  # of the tables of token stability: one codec's are open


def render_page(evaluation: Evaluation, sound: Sound = SOUNDS["wav"]) -> str:
    """Return the whole page as HTML, without paths of this machine.

    Args:
        evaluation: result and audio.
        sound: format of the audio.

    Raises:
        MissingDependencyError: matplotlib or Pillow isn't installed, or libsndfile can't write the format.
    """
    require_plotting()
    sound.require()
    result = shown_result(evaluation.result)
    evaluation = dataclasses.replace(evaluation, result=result)
    clips = clips_html(evaluation, sound)
    body = "\n".join(
        (
            '<main id="page">',
            "<h1>dmcodec evaluate</h1>",
            _head(result),
            _quality(result),
            clips,
            plots_html(result),
            _stability(result),
            *map(_table, (definition_table(result), codebook_table(result), failure_table(result))),
            _record(result),
            "</main>",
            blind_html(result) if clips else "",
        )
    )
    script = SCRIPT + BLIND_SCRIPT if clips else ""
    return html_page(f"dmcodec evaluate: {result.reference}", body, STYLE + BLIND_STYLE, script)


def require_plotting() -> None:
    """Raise MissingDependencyError where matplotlib or Pillow isn't installed."""
    for module, package in (("matplotlib", "matplotlib"), ("PIL", "pillow")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(f'the page needs {package}; run `pip install "dmcodec[evaluate]"`')


def shown_result(result: EvaluationResult) -> EvaluationResult:
    """Return a result for readers elsewhere: of each path of this machine, only the last part."""
    sources = [column.column.source for column in result.columns]
    shorten = PathFilter([result.reference, *sources, *paths_in_command(result.command)])

    def of_column(found: ColumnResult) -> ColumnResult:
        scores = {
            name: dataclasses.replace(score, failures={key: shorten(reason) for key, reason in score.failures.items()})
            for name, score in found.clips.items()
        }
        column = dataclasses.replace(found.column, source=_source(found.column.source))
        return dataclasses.replace(found, column=column, clips=scores)

    return dataclasses.replace(
        result,
        reference=last_part(result.reference),
        columns=tuple(map(of_column, result.columns)),
        original=of_column(result.original) if result.original else None,
        definitions={key: shorten(text) for key, text in result.definitions.items()},
        remarks=tuple(map(shorten, result.remarks)),
        command=without_paths_in_command(result.command),
    )


def _source(source: str) -> str:
    """Return a column's source: the last part of a path. What is no path, such as the id of a model, stays."""
    return last_part(source) if Path(source).exists() else PathFilter()(source)


def _head(result: EvaluationResult) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in summary_lines(result))
    return f'<div class="lines">{lines}</div>\n<p class="soft">{escape(result.date)}</p>'


def _record(result: EvaluationResult) -> str:
    command = f"<p><code>{escape(result.command)}</code></p>" if result.command else ""
    return f'<h2>Record</h2>\n<div class="lines"><p>dmcodec {escape(result.dmcodec_version)}</p>{command}</div>'


def _table(table: Table, most_rows: int = _FOLDED_ROWS) -> str:
    """Return a table; folded where it is long; nothing where it has no rows."""
    if not table.rows:
        return ""
    if len(table.rows) <= most_rows:
        return html_table(table)
    body = html_table(dataclasses.replace(table, title=""))
    return f"<details><summary><h2>{escape(table.title)}</h2></summary>\n{body}\n</details>"


def _quality(result: EvaluationResult) -> str:
    """Return the quality tables with the best means marked, a line about that, and the remarks folded away."""
    if not result.metrics:
        return ""
    best = {key: _best(key, result) for key in result.metrics}
    tables = quality_tables(result)
    body = "\n".join(
        html_table(dataclasses.replace(table, note="", title=table.title if index == 0 else ""), _rows(part, best))
        for index, (table, part) in enumerate(zip(tables, quality_parts(result), strict=True))
    )
    remarks = "".join(f"<p>{escape(line)}</p>" for line in tables[-1].note.splitlines())
    return (
        f'<section id="quality">{body}\n<p class="soft">{escape(" ".join(_legend(result, best)))}</p>\n'
        f'<details class="soft lines"><summary>How these figures were made</summary>{remarks}</details></section>'
    )


def _rows(result: EvaluationResult, best: dict[str, str | None]) -> str:
    columns = (result.original, *result.columns) if result.original else result.columns
    rows = []
    measured: list[ColumnResult | None] = [*columns, *(None for _ in result.published_rows)]
    for column, row in zip(measured, quality_table(result).rows, strict=True):
        cells = [f'<td class="label">{escape(row[0])}</td>', f"<td>{escape(row[1])}</td>"]
        for key, text in zip(result.metrics, row[2:], strict=True):
            value, *rest = text.split("\n")
            is_best = column not in (None, result.original) and value == best[key]
            mark = ' class="best"' if is_best else ""
            small = "".join(f"<small>{escape(line)}</small>" for line in rest)
            cells.append(f"<td><span{mark}>{escape(value)}</span>{small}</td>")
        rows.append(f"<tr{' class=published' if column is None else ''}>{''.join(cells)}</tr>\n")
    return "".join(rows)


def _legend(result: EvaluationResult, best: dict[str, str | None]) -> Iterator[str]:
    yield "↑ higher is better, ↓ lower is better."
    if any(best.values()):
        few = "look at the intervals." if has_intervals(result) else "there are too few files for that."
        yield f"{_BOLD}{few}"
    if has_intervals(result):
        yield "Below a mean: its 95 % confidence interval."
    if any(estimate.failed for column in result.columns for estimate in column.summary.values()):
        yield "A mean with n below it is over n files."
    if not all(_same_files(key, result) for key in result.metrics):
        yield "Where the codecs' values are of different files, none is bold: don't compare these means."


def _stability(result: EvaluationResult) -> str:
    """Return the figure and the tables of token stability; "" where it was not measured."""
    found = stability_of(result)
    tables = stability_tables(found)
    if not tables:
        return ""
    figure = stability_figure(found)
    head = f'<h2>Token stability</h2>\n<figure class="stability">{figure}</figure>' if figure else ""
    return "\n".join((head, _table(tables[0], _FOLDED_CODES), *map(_table, tables[1:])))


def _best(key: str, result: EvaluationResult) -> str | None:
    """Return the best value as it is shown; None for fewer than two columns with a value, or of different files."""
    if not _same_files(key, result):
        return None
    values = [column.summary[key].value for column in result.columns if key in column.summary]
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    return METRICS[key].text((max if METRICS[key].higher_is_better else min)(known))


def _same_files(key: str, result: EvaluationResult) -> bool:
    """Return whether all columns with a value of a metric have it for the same files."""
    files = {
        frozenset(clip for clip, score in column.clips.items() if key in score.values) for column in result.columns
    }
    return len(files - {frozenset()}) < 2
