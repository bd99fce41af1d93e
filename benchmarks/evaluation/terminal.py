"""An evaluation on a terminal."""

from __future__ import annotations

from rich.console import Console, Group
from rich.text import Text

from dmcodec.benchmarks.evaluation.results import EvaluationResult
from dmcodec.benchmarks.evaluation.tables import evaluation_tables, summary_lines
from dmcodec.benchmarks.terminal import render_table


def print_evaluation(result: EvaluationResult, console: Console) -> None:
    """Prints what was evaluated, and every table."""
    head = Text("\n".join(summary_lines(result)))
    console.print(Group(head, *(render_table(table) for table in evaluation_tables(result))))
