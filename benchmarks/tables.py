"""Results as tables of plain text, the same on a terminal and on an HTML page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text. The first `labels` columns are words (left-aligned), the others numbers (right-aligned)."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    note: str = ""


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds, with three significant digits or more."""
    return significant(seconds * 1000)


def significant(value: float) -> str:
    """Return a positive number with three significant digits or more, never in scientific notation."""
    decimals = 2 - math.floor(math.log10(value))
    return f"{value:,.{max(0, decimals)}f}"


def count_of(count: int, noun: str) -> str:
    """Return a count with its noun: `1 file`, `2 files`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def markdown_table(table: Table) -> str:
    """Return one table in Markdown, with its title above and its note below."""
    rows = [table.columns, tuple("---" if i < table.labels else "---:" for i in range(len(table.columns))), *table.rows]
    lines = ["| " + " | ".join(_markdown_cell(cell) for cell in row) + " |" for row in rows]
    note = f"\n{table.note}\n" if table.note else ""
    return f"## {table.title}\n\n" + "\n".join(lines) + f"\n{note}"


def _markdown_cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", "<br>")


def print_tables(head: str, tables: Sequence[Table], console: Console) -> None:
    """Print the lines of `head`, and the tables below them."""
    console.print(Group(Text(head), *(render_table(table) for table in tables)))


def render_table(table: Table) -> RenderableType:
    """Return one table for a terminal, with its title above and its note below."""
    rich_table = RichTable(
        title=Text(f"\n{table.title}", style="bold"), title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    for index, column in enumerate(table.columns):
        rich_table.add_column(Text(column), justify="left" if index < table.labels else "right", overflow="fold")
    for row in table.rows:
        rich_table.add_row(*(Text(cell) for cell in row))
    return Group(rich_table, Text(table.note, style="dim"))
