"""The metrics of an evaluation in the process of the test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dmcodec.benchmarks.evaluate.signal_metrics import measure
from dmcodec.benchmarks.evaluate.workers import Outcome, Task


def in_this_process(tasks: Iterable[Task], jobs: int) -> Iterator[Outcome]:
    """Compute metrics without the seconds that a new process takes to import its packages."""
    for task in tasks:
        yield Outcome(task.column, task.clip, *measure(task.keys, task.reference, task.degraded))
