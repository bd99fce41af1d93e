"""The report of `dmcodec bench`: one HTML page with plots (SVG) and tables, which loads nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import importlib.util
from html import escape

from dmcodec.benchmarks.page_paths import PathFilter, last_part, paths_in_command, without_paths_in_command
from dmcodec.benchmarks.pages import html_page, html_table
from dmcodec.benchmarks.tables import Table
from dmcodec.errors import MissingDependencyError

from .options import Shape
from .plots import STYLE, graph_shares, latency_by_streams, rtf_by_duration, throughput_by_batch
from .record_tables import record_tables
from .result import BenchResult
from .result_tables import result_tables, summary_lines

_PAGE_STYLE = """
.headline { font-size: 1.1rem; margin: .8rem 0; }
.warning { border-left: .3rem solid #c2574f; padding-left: .8rem; font-weight: 600; }
"""


def render_report(result: BenchResult) -> str:
    """Return the whole page as HTML, without paths of this machine.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
    """
    require_matplotlib()
    shorten = PathFilter([result.bundle.path, *paths_in_command(result.command)])
    bundle = dataclasses.replace(result.bundle, path=last_part(result.bundle.path))
    result = dataclasses.replace(result, bundle=bundle, command=without_paths_in_command(result.command))
    reference = Shape(result.reference_s, 1)
    spread = "Points: median; bars: quartiles."
    parts = [
        _figure(
            "RTF by clip length",
            f"Compute time / audio time, batch 1; smaller is faster. {spread}",
            rtf_by_duration(result),
        ),
        _figure(
            "Throughput by batch",
            f"xRT = seconds of audio per second, clips of {reference}; larger is faster. {spread}",
            throughput_by_batch(result),
        ),
        _figure(
            "Share of each graph",
            f"Graphs of {result.side}, p50, one clip of {reference}; share of encode and decode.",
            graph_shares(result),
        ),
    ]
    if result.live:
        caption = "Latency of a push, p99, by number of live streams; dotted: the limit; both axes logarithmic."
        parts.append(_figure("Live streams", caption, latency_by_streams(result.live)))
    if not result.is_measurement:
        parts = [part.replace("</h2>", " (not a measurement)</h2>") for part in parts]
    tables = [table for table in (*result_tables(result), *record_tables(result)) if table.rows]
    parts += [html_table(_without_paths(table, shorten)) for table in tables]
    lines = "".join(f'<p class="lines">{escape(shorten(line))}</p>' for line in summary_lines(result))
    warning = result.load.warning() if result.load else ""
    sentences = {"warning": warning, "headline": result.headline.removeprefix(warning).strip()}
    head = "<h1>dmcodec bench</h1>\n" + "".join(
        f'<p class="{kind}">{escape(text)}</p>\n' for kind, text in sentences.items() if text
    )
    body = f'{head}{lines}\n<p class="soft">{escape(result.date)}</p>\n' + "\n".join(parts)
    return html_page(f"dmcodec bench: {result.bundle.model_id}", body, STYLE + _PAGE_STYLE)


def _without_paths(table: Table, shorten: PathFilter) -> Table:
    rows = tuple(tuple(shorten(cell) for cell in row) for row in table.rows)
    return dataclasses.replace(table, rows=rows, note=shorten(table.note))


def _figure(title: str, caption: str, drawn: str) -> str:
    return f'<h2>{escape(title)}</h2>\n<p class="soft">{escape(caption)}</p>\n{drawn}'


def require_matplotlib() -> None:
    """Raise MissingDependencyError where matplotlib isn't installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError('the report needs matplotlib; run `pip install "dmcodec[bench]"`')
