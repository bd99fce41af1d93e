"""An evaluation on a terminal."""

from __future__ import annotations

from rich.console import Console

from dmcodec.benchmarks.evaluation.results import EvaluationResult
from dmcodec.benchmarks.evaluation.tables import evaluation_tables, summary_lines
from dmcodec.benchmarks.terminal import print_tables


def print_evaluation(result: EvaluationResult, console: Console) -> None:
    """Prints what was evaluated, and every table."""
    print_tables("\n".join(summary_lines(result)), evaluation_tables(result), console)
