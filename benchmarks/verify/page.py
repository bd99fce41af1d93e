"""The proof page: one HTML file, the verdict first and every case folded away, which loads nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import re
from html import escape

from dmcodec.benchmarks.pages import html_page, html_table
from dmcodec.benchmarks.tables import Table

from .figures import Figure
from .proof import Proof

_STYLE = """
h1 { overflow-wrap: anywhere; }
h2 { margin-top: 1.8rem; }
.verdict { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; margin: 1rem 0;
  padding: .9rem 1.1rem; border: 1px solid var(--line); border-left: .4rem solid var(--mark); border-radius: .4rem;
  background: var(--card); }
.verdict strong { font-size: 1.5rem; letter-spacing: .02em; text-transform: uppercase; color: var(--mark); }
.verdict p { margin: 0; flex: 1 1 20rem; overflow-wrap: anywhere; }
.passed { --mark: #1f7a4d; }
.failed { --mark: #b3372f; }
.caution { --mark: #96690a; border-left: .4rem solid var(--mark); padding: .1rem 0 .1rem .9rem; margin: 1rem 0; }
@media (prefers-color-scheme: dark) {
  .passed { --mark: #5cc690; }
  .failed { --mark: #f0837b; }
  .caution { --mark: #dcb04f; }
}
ul { margin: .3rem 0; padding-left: 1.3rem; }
li { margin: .2rem 0; overflow-wrap: anywhere; }
.worst td, .worst th { white-space: normal; padding-right: .9rem; }
.worst th:first-child { min-width: 8rem; }
.worst td:last-child, .worst th:last-child { padding-right: 0; }
@media (max-width: 30rem) {
  .worst td, .worst th { padding-right: .5rem; font-size: .87rem; }
  .worst th:first-child { min-width: 6rem; }
}
.worst small { display: block; color: var(--soft); }
code { font-family: ui-monospace, monospace; font-size: .92em; }
td.miss { color: var(--mark); font-weight: 600; }
details { margin: .7rem 0; border: 1px solid var(--line); border-radius: .4rem; padding: 0 .9rem; }
details > :last-child { margin-bottom: .9rem; }
summary { cursor: pointer; padding: .55rem 0; font-weight: 600; }
details h2 { font-size: 1rem; margin-top: .8rem; }
.record td:first-child { white-space: normal; min-width: 8rem; }
.record td:last-child { font-family: ui-monospace, monospace; font-size: .85rem; text-align: left; }
"""


def render_proof(proof: Proof) -> str:
    """Return the whole page as HTML."""
    parts = [
        f"<h1>Proof of {escape(proof.subject)}</h1>",
        _verdict(proof),
        f'<p class="soft">{escape(proof.date)}</p>',
        _list("What failed", proof.problems),
        _figures(proof),
        f"<h2>Ties</h2>\n<p>Differ by a tie only: {escape(proof.ties)}</p>",
        *_scope(proof),
        *(_folded(table.title, [dataclasses.replace(table, title="")]) for table in proof.facts),
        _folded("Every case", proof.details) if proof.details else "",
        _notes(proof),
    ]
    return html_page(f"Proof of {proof.subject}: {proof.verdict}", "\n".join(filter(None, parts)), _STYLE)


def _verdict(proof: Proof) -> str:
    kind = "passed" if proof.passed else "failed"
    return (
        f'<div class="verdict {kind}" role="status"><strong>{escape(proof.verdict)}</strong>'
        f"<p>{escape(proof.sentence)}</p></div>"
    )


def _figures(proof: Proof) -> str:
    if not proof.figures:
        return ""
    table = Table("Worst figure of each kind", ("figure, and the input that gave it", "worst", "needs", "result"), ())
    return f'<div class="worst">{html_table(table, "".join(_row(figure) for figure in proof.figures))}</div>'


def _row(figure: Figure) -> str:
    cells = (figure.text, figure.needs, figure.verdict)
    mark = "" if figure.reached else ' class="miss"'
    label = f'<td class="label">{escape(figure.kind)}<small>{escape(figure.case)}</small></td>'
    row = "".join(f"<td{mark}>{escape(text)}</td>" for text in cells)
    return f'<tr class="{"passed" if figure.reached else "failed"}">{label}{row}</tr>\n'


def _scope(proof: Proof) -> list[str]:
    proven = [proof.scope.proven] if proof.passed else []
    mixing = f'<div class="caution"><p>{escape(proof.mixing)}</p></div>' if proof.mixing else ""
    return [mixing, _list("What this proves", proven), _list("What this does not prove", proof.scope.not_proven)]


def _notes(proof: Proof) -> str:
    lines = "".join(f"<li>{escape(note)}</li>" for note in proof.notes)
    return f"<details><summary>Words</summary><ul>{lines}</ul></details>"


def _list(title: str, lines: list[str] | tuple[str, ...]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{_text(line[:1].upper() + line[1:])}.</li>" for line in lines)
    return f"<h2>{escape(title)}</h2>\n<ul>{items}</ul>"


def _text(line: str) -> str:
    """Return a line as HTML, with commands in backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(line))


def _folded(title: str, tables: list[Table] | tuple[Table, ...]) -> str:
    body = "\n".join(html_table(table) for table in tables)
    return f"<details><summary>{escape(title)}</summary>\n{body}\n</details>"
