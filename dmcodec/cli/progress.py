"""Progress of long work: a bar on a terminal, a line now and then in a log. Both go to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer

from dmcodec.text import one_line

from .common import console

if TYPE_CHECKING:
    from rich.console import Console

LINE_EVERY_S = 10.0


class Report(Protocol):
    """Takes how far a stage of the work has come."""

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        """Show that `done` of `total` units of a stage are done; `detail` says more, such as the losses of a step."""


@contextmanager
def show_progress() -> Iterator[Report]:
    """Yield what shows progress on stderr: a bar on a terminal, which is erased at the end, else lines of text."""
    errors = console(stderr=True)
    if errors.is_terminal:
        with _bar(errors) as report:
            yield report
    else:
        yield ProgressLines(lambda line: typer.echo(line, err=True))


@contextmanager
def _bar(errors: Console) -> Iterator[Report]:
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn(),
    )  # fmt: skip
    # Lines printed on stdout go above the bar; where stdout is a file, rich must not take them to the terminal.
    with Progress(
        *columns, console=errors, transient=True, redirect_stdout=sys.stdout is not None and sys.stdout.isatty()
    ) as bar:
        task = bar.add_task("", total=None)
        shown = ""

        def report(stage: str, done: float, total: float, detail: str = "") -> None:
            nonlocal shown
            if stage != shown:  # what is left is estimated from the speed of this stage alone
                shown = stage
                bar.reset(task)
            title = escape(one_line(_title(stage, detail)))
            bar.update(task, description=title, completed=round(done), total=round(total))

        yield report


class ProgressLines:
    """Write a line every 10 seconds at most, and also at the end of each stage that took longer than that."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._written = self._reported = clock()
        self._started: dict[str, float] = {}

    def __call__(self, stage: str, done: float, total: float, detail: str = "") -> None:
        now = self._clock()
        started = self._started.setdefault(stage, self._reported)
        self._reported = now
        ended = done >= total
        if now - self._written >= LINE_EVERY_S or (ended and now - started >= LINE_EVERY_S):
            left = "" if ended or done <= 0 else _left((now - started) * (total - done) / done)
            title = one_line(_title(stage, detail))
            self._write(f"{title}: {done:.0f} of {total:.0f} after {now - started:.0f} s{left}")
            self._written = now
        if ended:
            del self._started[stage]


def _left(seconds: float) -> str:
    """Return an estimate in words; "" for less than a minute."""
    if seconds < 60:
        return ""
    minutes = round(seconds / 60)
    return f", about {minutes} min left" if minutes < 120 else f", about {minutes / 60:.0f} h left"


def _title(stage: str, detail: str) -> str:
    return f"{stage} ({detail})" if detail else stage
