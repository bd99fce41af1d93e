"""The local engine: processes with one thread each on the CPU, or this process alone."""

from __future__ import annotations

import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from dmcodec.errors import ArgumentError, AudioWarning, BackendError, DmcodecError
from dmcodec.processes import end_with_parent, leave_interrupts_to_parent, start_process
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.corpus.plan import Plan, shard_name
from dmcodec.runtime.corpus.reports import ShardReport
from dmcodec.runtime.corpus.shard import run_shard

from .engine import CodecOptions, ShardProgress

# A shard whose process dies so often is given up.
_TRIES = 2
# So many processes that die before they are ready, one after the other, end the run.
_STARTS = 4
_REPORT_EVERY_S = 0.5


@dataclass(frozen=True)
class LocalEngine:
    """Runs shards in `workers` processes; with one, in this process. See `Engine`.

    Raises:
        ArgumentError: `workers` is below 1.
    """

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ArgumentError(f"--workers {self.workers} must be at least 1")

    def run(
        self, plan: Plan, pending: Sequence[int], codec: CodecOptions, progress: ShardProgress
    ) -> Iterator[ShardReport]:
        """See `Engine`. Where a process dies, its shard runs once more.

        Raises:
            BackendError: processes died; raised when all other shards are done.
            DmcodecError: as `Engine`.
        """
        workers = min(self.workers, len(pending))
        if workers > 1:
            run = _Processes(plan, pending, codec, progress)
            try:
                yield from run.run(workers)
            finally:
                run.stop()
            return
        loaded = codec.load()
        for index in pending:
            yield _run_shard(plan, index, loaded, codec, progress)


def _run_shard(plan: Plan, index: int, loaded: Codec, codec: CodecOptions, progress: ShardProgress) -> ShardReport:
    return run_shard(plan, index, loaded, lambda done_s, failures: progress(index, done_s, failures), codec.spool)


@dataclass
class _Worker:
    """A process. `shard`: that it works on; `ready`: whether its codec is loaded."""

    process: SpawnProcess
    connection: Connection
    shard: int | None = None
    ready: bool = False


@dataclass(frozen=True)
class _Progress:
    shard: int
    done_s: float
    failures: int


class _Processes:
    """The state of a run in several processes."""

    def __init__(self, plan: Plan, pending: Sequence[int], codec: CodecOptions, progress: ShardProgress) -> None:
        self._plan, self._codec, self._progress = plan, codec, progress
        self._pending = deque(pending)
        self._deaths: Counter[int] = Counter()
        self._lost: list[BackendError] = []
        self._failed_starts = 0  # since a process was ready
        self._workers: list[_Worker] = []

    def run(self, count: int) -> Iterator[ShardReport]:
        """Yield the reports as they come."""
        for _ in range(count):
            self._start()
        while self._workers:
            busy = {worker.connection: worker for worker in self._workers}
            for connection in wait(list(busy)):
                report = self._hear(busy[connection])  # type: ignore[index]
                if report is not None:
                    yield report
        if self._lost:
            more = f" (and {len(self._lost) - 1} more shards)" if len(self._lost) > 1 else ""
            raise BackendError(f"{self._lost[0]}{more}")

    def stop(self) -> None:
        """End all processes; each removes what it has not completed."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers = []

    def _start(self) -> None:
        process, connection = start_process(_work, self._plan, self._codec)
        self._workers.append(_Worker(process, connection))

    def _hear(self, worker: _Worker) -> ShardReport | None:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return None
        if isinstance(message, DmcodecError):
            raise message
        if isinstance(message, _Progress):
            self._progress(message.shard, message.done_s, message.failures)
        elif isinstance(message, str):
            warnings.warn(message, AudioWarning, stacklevel=2)
        else:  # ready for a shard, with the report of the last one
            worker.ready, self._failed_starts = True, 0
            self._give(worker)
            return message
        return None

    def _give(self, worker: _Worker) -> None:
        worker.shard = self._pending.popleft() if self._pending else None
        with suppress(OSError):  # a dead one is found when it is heard
            worker.connection.send(worker.shard)
        if worker.shard is None:
            worker.process.join()
            worker.connection.close()
            self._workers.remove(worker)

    def _bury(self, worker: _Worker) -> None:
        """Give the shard of a process that died to another one."""
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        code = worker.process.exitcode
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                raise BackendError(
                    f"processes of --workers end while they start, {_STARTS} times, with exit code {code}; "
                    "out of memory? use fewer --workers"
                )
        if worker.shard is not None:
            self._deaths[worker.shard] += 1
            if self._deaths[worker.shard] < _TRIES:
                self._pending.appendleft(worker.shard)
            else:
                name = shard_name(worker.shard)
                self._lost.append(
                    BackendError(
                        f"{name}: the process that worked on it ended {_TRIES} times, with exit code {code}; "
                        "out of memory? use fewer --workers"
                    )
                )
        if self._pending:
            self._start()


def _work(connection: Connection, plan: Plan, codec: CodecOptions) -> None:
    """Run the shards that come; in a process of its own."""
    leave_interrupts_to_parent()
    end_with_parent()
    warnings.simplefilter("always", AudioWarning)
    original = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, AudioWarning):
            send(str(message))
        else:
            original(message, category, *place, **more)

    send = _Sender(connection)
    warnings.showwarning = show
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            loaded = codec.load()
            report: ShardReport | None = None
            while True:
                send(report)
                index: int | None = connection.recv()
                if index is None:
                    return
                report = _run_shard(plan, index, loaded, codec, send.progress)
        except DmcodecError as error:
            send(error)


class _Sender:
    """Sends messages from all threads of a process; progress now and then only."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        self._next_s = 0.0
        self._failures = 0

    def __call__(self, message: Any) -> None:
        with self._lock:
            self._connection.send(message)

    def progress(self, shard: int, done_s: float, failures: int) -> None:
        """Send the progress of a shard, where the last one is a while ago or clips failed."""
        now = time.monotonic()
        if now >= self._next_s or failures > self._failures:
            self._next_s = now + _REPORT_EVERY_S
            self(_Progress(shard, done_s, failures))
        self._failures = failures
