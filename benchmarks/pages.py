"""HTML pages of results: document, style and tables. A page loads nothing from elsewhere, and its policy forbids it."""

from __future__ import annotations

from html import escape

from .tables import Table

# Content security policy: inline style and script, embedded images and audio, nothing else.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5b6470; --line: #d9dde3; --page: #fff; --card: #f6f7f9;
  --accent: #2f7ebc; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #9aa3af; --line: #353b44; --page: #16191d; --card: #1e2228; --accent: #6db1e4; }
}
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1.25rem 3rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.3rem 0 .5rem; }
p { margin: .3rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.lines { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; line-height: 1.3; }
.label { text-align: left; }
.words td { white-space: normal; min-width: 7rem; }
.record td { white-space: normal; overflow-wrap: anywhere; }
.record td:first-child { color: var(--soft); white-space: nowrap; }
"""


def html_page(title: str, body: str, style: str = "", script: str = "") -> str:
    """Return a whole document.

    Args:
        title: plain text.
        body: HTML of the body.
        style, script: CSS and JavaScript of this page, beside the style that all pages share.
    """
    end = f"\n<script>{script}</script>" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n{body}{end}\n</body>\n</html>\n"
    )


def html_table(table: Table, rows: str | None = None) -> str:
    """Return a table with its title, header and note, each unless it is empty.

    `rows` (HTML of `tr` elements) replaces the table's rows.
    """
    head = "".join(_cell("th", column, index, table) for index, column in enumerate(table.columns))
    has_head = any(table.columns)
    kind = "record" if not has_head else "words" if table.labels == len(table.columns) else "numbers"
    body = "".join(f"<tr>{_row(table, row)}</tr>\n" for row in table.rows) if rows is None else rows
    note = "".join(f"<p>{escape(line)}</p>" for line in table.note.splitlines())
    title = f"<h2>{escape(table.title)}</h2>\n" if table.title else ""
    return (
        f'{title}<div class="wide"><table class="{kind}">\n'
        + (f"<thead><tr>{head}</tr></thead>\n" if has_head else "")
        + f"<tbody>\n{body}</tbody></table></div>"
        + (f'\n<div class="soft lines">{note}</div>' if note else "")
    )


def _row(table: Table, row: tuple[str, ...]) -> str:
    return "".join(_cell("td", cell, index, table) for index, cell in enumerate(row))


def _cell(tag: str, text: str, index: int, table: Table) -> str:
    label = ' class="label"' if index < table.labels else ""
    return f"<{tag}{label}>{escape(text).replace(chr(10), '<br>')}</{tag}>"
