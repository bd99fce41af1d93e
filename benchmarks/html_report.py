"""The report: one HTML page that needs nothing from outside itself."""

from __future__ import annotations

from html import escape

from dmcodec.benchmarks import figures
from dmcodec.benchmarks.facts import fact_tables, summary_lines
from dmcodec.benchmarks.options import Shape
from dmcodec.benchmarks.results import BenchResult
from dmcodec.benchmarks.tables import Table, result_tables

_CSS = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5b6470; --line: #d9dde3; --page: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa3af; --line: #353b44; --page: #16191d; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p { margin: .3rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.label { text-align: left; }
.facts td { white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { color: var(--soft); white-space: nowrap; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
"""


def render_report(result: BenchResult) -> str:
    """The whole page.

    Raises:
        MissingDependencyError: matplotlib isn't installed.
    """
    figures.require_matplotlib()
    reference = Shape(result.reference_s, 1)
    plots = [
        ("RTF by clip length", "Compute time / audio time, p50, batch 1; smaller is faster.", figures.rtf_by_duration),
        (
            "Throughput by batch",
            f"xRT = audio seconds per second, p50, clips of {reference}; larger is faster.",
            figures.throughput_by_batch,
        ),
        ("Where the time goes", f"The graphs of {result.side}, p50, one clip of {reference}.", figures.graph_shares),
    ]
    parts = [_figure(title, caption, draw(result)) for title, caption, draw in plots]
    parts += [_table(table) for table in result_tables(result)]
    parts += [_facts(table) for table in fact_tables(result) if table.rows]
    head = "".join(f"<p>{escape(line)}</p>" for line in summary_lines(result))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>dmcodec bench: {escape(result.bundle.model_id)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f'<h1>dmcodec bench</h1>\n{head}\n<p class="soft">{escape(result.date)}</p>\n'
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _figure(title: str, caption: str, svg: str) -> str:
    return f'<h2>{escape(title)}</h2>\n<p class="soft">{escape(caption)}</p>\n<figure>{svg}</figure>'


def _table(table: Table) -> str:
    header = "".join(_cell("th", column, index, table) for index, column in enumerate(table.columns))
    note = f'<p class="soft">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table>\n<thead><tr>{header}</tr></thead>\n'
        f"<tbody>\n{_rows(table)}</tbody></table></div>\n{note}"
    )


def _facts(table: Table) -> str:
    body = f"<tbody>\n{_rows(table)}</tbody>"
    return f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table class="facts">{body}</table></div>'


def _rows(table: Table) -> str:
    rows = ("".join(_cell("td", cell, index, table) for index, cell in enumerate(row)) for row in table.rows)
    return "".join(f"<tr>{row}</tr>\n" for row in rows)


def _cell(tag: str, text: str, index: int, table: Table) -> str:
    label = ' class="label"' if index < table.labels else ""
    return f"<{tag}{label}>{escape(text)}</{tag}>"
