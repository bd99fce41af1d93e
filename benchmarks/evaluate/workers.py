"""Signal metrics in worker processes, concurrently; a crash costs only the metric and the clip that caused it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from dmcodec.audio import Waveform

from .signal_metrics import measure

CRASHED = "the metric's code crashed on this clip"


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Metrics `keys` of one clip in one column. Both waveforms are (samples,), at 16 kHz, equally long."""

    column: str
    clip: str
    keys: tuple[str, ...]
    reference: Waveform
    degraded: Waveform


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a task: a value or a reason for each of its keys."""

    column: str
    clip: str
    values: Mapping[str, float]
    failures: Mapping[str, str]


_Found = tuple[dict[str, float], dict[str, str]]


def run_tasks(tasks: Iterable[Task], jobs: int) -> Iterator[Outcome]:
    """Run the tasks in `jobs` processes, and yield the outcomes in the order in which they are ready.

    At most two tasks for each process are pending, so that memory doesn't grow with the number of clips. The processes
    are spawned: a script that calls this needs `if __name__ == "__main__":`.
    """
    pool = _pool(jobs)
    pending: dict[Future[_Found], Task] = {}
    try:
        for task in tasks:
            suspects: list[Task] = []
            try:
                pending[_submit(pool, task)] = task
            except BrokenProcessPool:
                suspects = [*pending.values(), task]
            while not suspects and len(pending) >= 2 * jobs:
                outcomes, suspects = _collect(pending)
                yield from outcomes
            if suspects:
                pool, pending = _replaced(pool, jobs), {}
                yield from map(_alone, suspects)
        while pending:
            outcomes, suspects = _collect(pending)
            yield from outcomes
            if suspects:
                pool, pending = _replaced(pool, jobs), {}
                yield from map(_alone, suspects)
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(pending: dict[Future[_Found], Task]) -> tuple[list[Outcome], list[Task]]:
    """Return the outcomes that are ready, and, where a process crashed, all tasks that may have caused this."""
    outcomes, suspects = [], []
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        task = pending.pop(future)
        try:
            outcomes.append(_outcome(task, future.result()))
        except BrokenProcessPool:
            suspects.append(task)
    if suspects:
        suspects += pending.values()
    return outcomes, suspects


def _alone(task: Task) -> Outcome:
    """Run a task in a new process, which may crash."""
    with _pool(1) as pool:
        try:
            return _outcome(task, _submit(pool, task).result())
        except BrokenProcessPool:
            return _outcome(task, ({}, dict.fromkeys(task.keys, CRASHED)))


def _outcome(task: Task, found: _Found) -> Outcome:
    return Outcome(task.column, task.clip, *found)


def _submit(pool: ProcessPoolExecutor, task: Task) -> Future[_Found]:
    return pool.submit(measure, task.keys, task.reference, task.degraded)


def _pool(jobs: int) -> ProcessPoolExecutor:
    # A fork would copy locks that threads of torch or onnxruntime hold, and could wait for them for ever.
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _ignore_interrupts)


def _replaced(pool: ProcessPoolExecutor, jobs: int) -> ProcessPoolExecutor:
    pool.shutdown(cancel_futures=True)
    return _pool(jobs)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
