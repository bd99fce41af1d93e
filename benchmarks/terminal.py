"""The results on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from dmcodec.benchmarks.facts import summary_lines
from dmcodec.benchmarks.results import BenchResult
from dmcodec.benchmarks.tables import Table, result_tables


def print_result(result: BenchResult, console: Console) -> None:
    """Prints what was measured, on what, and every table."""
    print_tables("\n".join(summary_lines(result)), result_tables(result), console)


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
