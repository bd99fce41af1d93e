"""The results as tables of plain text, the same for the terminal and the report."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

# FOLDED: The results on a terminal.


MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text. The first `labels` columns are words (left-aligned), the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    note: str = ""


def milliseconds(seconds: float) -> str:
    """Milliseconds to three digits or more."""
    return significant(seconds * 1000)


def significant(value: float) -> str:
    """A positive figure to three significant digits or more, never in scientific notation."""
    decimals = 2 - math.floor(math.log10(value))
    return f"{value:,.{max(0, decimals)}f}"


def print_tables(head: str, tables: Sequence[Table], console: Console) -> None:
    """Prints some lines, and tables below them."""
    console.print(Group(Text(head), *(render_table(table) for table in tables)))


def render_table(table: Table) -> RenderableType:
    """One table, with its title above and its note below."""
    rich_table = RichTable(
        title=Text(f"\n{table.title}", style="bold"), title_justify="left", box=None, padding=(0, 1, 0, 0)
    )
    for index, column in enumerate(table.columns):
        rich_table.add_column(Text(column), justify="left" if index < table.labels else "right", overflow="fold")
    for row in table.rows:
        rich_table.add_row(*(Text(cell) for cell in row))
    return Group(rich_table, Text(table.note, style="dim"))
