"""`--jobs`: the work of a verb in several processes, each with a codec of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from dmcodec.errors import BackendError, DmcodecError
from dmcodec.processes import leave_interrupts_to_parent, start_process

from .files import Pair

if TYPE_CHECKING:
    from dmcodec.runtime.file_batches import Outcome

    from .work import WorkFactory

MAX_SLICE = 64  # files that a process gets at a time
_SLICES_EACH = 4


@dataclass(frozen=True)
class _Slice:
    """Files `start` to `start + len(pairs)`."""

    start: int
    pairs: Sequence[Pair]


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    at_work: _Slice | None = None
    done: set[int] = field(default_factory=set)  # files of the slice


def run_jobs(factory: WorkFactory, pairs: Sequence[Pair], jobs: int, record: Callable[[Outcome], None]) -> None:
    """Do the work on all pairs in `jobs` processes; call `record` with each outcome, in the order of the pairs.

    Where a process dies, its files are done one by one in others; the file that kills a process again has failed.

    Raises:
        DmcodecError: the codec can't be loaded.
    """
    run = _Jobs(factory.one_of(jobs), pairs, jobs, record)
    try:
        run.run()
    finally:
        run.stop()


class _Jobs:
    """The state of `run_jobs`."""

    def __init__(
        self, factory: WorkFactory, pairs: Sequence[Pair], jobs: int, record: Callable[[Outcome], None]
    ) -> None:
        size = max(1, min(MAX_SLICE, len(pairs) // (jobs * _SLICES_EACH)))
        self._slices = deque(_Slice(start, pairs[start : start + size]) for start in range(0, len(pairs), size))
        self._factory, self._record = factory, record
        self._total, self._next = len(pairs), 0
        self._outcomes: dict[int, Outcome] = {}
        self._workers: list[_Worker] = []
        for _ in range(jobs):
            self._start()

    def run(self) -> None:
        while self._next < self._total:
            busy = {worker.connection: worker for worker in self._workers}
            for connection in wait(list(busy)):
                self._hear(busy[connection])  # type: ignore[index]

    def stop(self) -> None:
        """End the processes; each finishes what it is writing. Record what they report until then."""
        for worker in self._workers:
            if self._next < self._total:
                worker.process.terminate()
            else:
                with suppress(OSError):
                    worker.connection.send(None)
        for worker in self._workers:
            with suppress(EOFError, OSError):
                while True:
                    self._take(worker, worker.connection.recv())
            worker.process.join()
            worker.connection.close()
        for index in sorted(self._outcomes):
            self._record(self._outcomes.pop(index))

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(message, DmcodecError):
            raise message
        if message is None:
            self._send(worker)
        else:
            self._take(worker, message)
            self._report()

    def _take(self, worker: _Worker, message: Any) -> None:
        if message is not None and not isinstance(message, DmcodecError):
            worker.done.add(message.index)
            self._outcomes[message.index] = message

    def _report(self) -> None:
        while self._next in self._outcomes:
            self._record(self._outcomes.pop(self._next))
            self._next += 1

    def _send(self, worker: _Worker) -> None:
        worker.done = set()
        worker.at_work = self._slices.popleft() if self._slices else None
        if worker.at_work is not None:
            with suppress(OSError):  # a dead one is found when it is heard
                worker.connection.send(worker.at_work)

    def _bury(self, worker: _Worker) -> None:
        """Give the files of a process that died to others, one by one; one that was alone has killed it."""
        from dmcodec.runtime.file_batches import Outcome

        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        lost = worker.at_work
        if lost is None:
            raise BackendError(f"a process of --jobs ended with exit code {worker.process.exitcode} while it started")
        rest = [index for index in range(lost.start, lost.start + len(lost.pairs)) if index not in worker.done]
        if len(lost.pairs) == 1:
            source = lost.pairs[0].source
            error = BackendError(
                f"{source}: the process that worked on it ended with exit code {worker.process.exitcode}; "
                "out of memory? use fewer --jobs"
            )
            self._outcomes[lost.start] = Outcome(lost.start, error=error)
            self._report()
        else:
            self._slices.extendleft(_Slice(index, [lost.pairs[index - lost.start]]) for index in reversed(rest))
        self._start()

    def _start(self) -> None:
        self._workers.append(_Worker(*start_process(_work, self._factory)))


def _work(connection: Connection, factory: WorkFactory) -> None:
    """Do the slices that come; in a process of its own. It ends with the process that started it."""
    leave_interrupts_to_parent()
    from .standard_streams import prepared_streams
    from .warnings import warnings_as_lines

    ended = (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt)
    with prepared_streams(), warnings_as_lines(), suppress(*ended):
        _do_slices(connection, factory)


def _do_slices(connection: Connection, factory: WorkFactory) -> None:
    from dmcodec.runtime.file_batches import run_work

    try:
        work = factory()
    except DmcodecError as error:
        connection.send(error)
        return
    while True:
        connection.send(None)  # ready
        part: _Slice | None = connection.recv()
        if part is None:
            return

        def record(outcome: Outcome, start: int = part.start) -> None:
            connection.send(replace(outcome, index=start + outcome.index))

        run_work(work, part.pairs, record, lambda _pair: lambda _done, _total: None)
