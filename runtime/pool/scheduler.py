"""The scheduler of a pool: which pushes run together, and when; and the threads that run them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import StreamError
from dmcodec.runtime.calls import Step

from .joining import JoinedGraphs, run_together

MAX_BATCH = 16  # pushes that run together; larger batches are not faster
LEAST_FULL = 4  # pushes that may run together, however long they take: they read the weights once
BATCH_S = 0.05  # longest batch of more than those: a push waits for the batch before its own, and for its own
_SHARE_OF_NEW = 0.2  # of a batch in the mean time of a push
MAX_WAITING = 4  # pushes of one stream that wait in the pool; its further pushes wait at the door
_CLOSE_S = 30.0  # longest wait for the batch that runs when a pool is closed

MakeStep = Callable[[], Step[NDArray[Any]]]


class Job:
    """A push, or the end of a clip: steps of one stream that run in order, one in each batch.

    Attributes:
        steps: those that have not run yet.
        parts: results of those that have.
        result: future of the joined results. It can be cancelled until the first step runs.
        stream: the single stream that the steps belong to.
        last: whether it ends the clip.
    """

    def __init__(self, steps: Sequence[MakeStep], stream: object, last: bool = False) -> None:
        self.steps, self.stream, self.last = deque(steps), stream, last
        self.parts: list[NDArray[Any]] = []
        self.result: Future[NDArray[Any]] = Future()


class Seat:
    """The place of a stream in its pool.

    Attributes:
        jobs: those that wait, at most MAX_WAITING; the first may have run in part.
        door: further jobs, which move up when there is room.
        running: whether a step of the first job runs.
        active: whether the stream is in the middle of a clip, so that others wait for its next push.
        since: when the first job became the first.
        due: whether the first job was to start with others that another worker took.
    """

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.door: deque[Job] = deque()
        self.running = self.active = self.due = False
        self.since = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether a job waits and none runs."""
        return bool(self.jobs) and not self.running

    def take_all(self) -> list[Job]:
        """Remove all jobs but one that runs; return them."""
        first = [self.jobs.popleft()] if self.running and self.jobs else []
        waiting = [*self.jobs, *self.door]
        self.jobs = deque(first)
        self.door.clear()
        return waiting

    def take_after(self, failed: Job) -> list[Job]:
        """Remove and return the waiting jobs of the clip of `failed`; those of a clip that was begun since stay."""
        dropped = [job for job in (*self.jobs, *self.door) if job.stream is failed.stream]
        for waiting in (self.jobs, self.door):
            kept = [job for job in waiting if job.stream is not failed.stream]
            waiting.clear()
            waiting.extend(kept)
        return dropped


class Scheduler:
    """Runs the jobs of all seats on worker threads. All its methods are safe to call from any thread.

    A batch starts when the oldest ready job has waited for `max_wait_s`, when all active streams wait, or when it is
    full. It takes the streams in the order in which their jobs became ready, so that none waits forever. Workers that
    are idle share them, and none takes more than its share of the jobs that are ready or run: the others would soon
    have nothing to do, and the streams of a large batch would fall behind. A batch is full with as many jobs as take
    BATCH_S, going by the batches before.
    """

    def __init__(self, graphs: JoinedGraphs, workers: int, max_wait_s: float) -> None:
        self._graphs, self._max_wait_s = graphs, max_wait_s
        self._seats: set[Seat] = set()
        self._left: deque[Seat] = deque()  # of streams that were garbage-collected
        self._changed = threading.Condition()
        self._closed = False
        self._process = os.getpid()
        self._idle = 0
        self._job_s = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"dmcodec-stream-pool-{index}", daemon=True)
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_streams(self) -> int:
        """Streams that are open."""
        self._check_process()
        with self._changed:
            self._drop_left()
            return len(self._seats)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def join(self) -> Seat:
        """Return a seat for a new stream."""
        self._check_process()
        with self._changed:
            self.check_open()
            seat = Seat()
            self._seats.add(seat)
            return seat

    def leave(self, seat: Seat, reason: str) -> None:
        """Free a seat; its jobs that wait fail for this reason. One that runs is finished."""
        if os.getpid() == self._process:
            with self._changed:
                self._seats.discard(seat)
            self.drop_waiting(seat, reason)

    def leave_later(self, seat: Seat) -> None:
        """Free a seat from a finalizer, which may run while this thread holds the lock."""
        self._left.append(seat)

    def submit(self, seat: Seat, job: Job) -> None:
        """Add a job of a seat behind its others."""
        with self._changed:
            self.check_open()
            seat.active = not job.last
            if len(seat.jobs) >= MAX_WAITING:
                seat.door.append(job)
                return
            if not seat.jobs:
                seat.since = time.monotonic()
            seat.jobs.append(job)
            self._changed.notify_all()

    def withdraw(self, seat: Seat, job: Job) -> bool:
        """Remove a job that no step of has run yet; return whether that was so."""
        with self._changed:
            if not job.result.cancel():
                return False
            for queue in (seat.jobs, seat.door):
                if job in queue:
                    queue.remove(job)
            self._move_up(seat)
            return True

    def drop_waiting(self, seat: Seat, reason: str) -> None:
        """Let the jobs of a seat that wait fail for this reason."""
        self._check_process()
        with self._changed:
            jobs = seat.take_all()
            seat.active = False
            self._changed.notify_all()
        for job in jobs:
            _fail(job, StreamError(reason))

    def close(self) -> None:
        """End the threads after the batches that run; let all jobs that wait fail."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._closed = True
            seats = list(self._seats)
            self._changed.notify_all()
        for seat in seats:
            self.leave(seat, "stream pool: closed while this push waited")
        for thread in self._threads:
            if thread is not threading.current_thread():  # a finalizer may run in any thread
                thread.join(_CLOSE_S)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StreamError(
                "stream pool: made in another process, and its threads don't survive a fork; "
                "load a Codec and open a pool in the process that uses them"
            )

    def check_open(self) -> None:
        """Raise StreamError if the pool was closed, or if this is another process."""
        self._check_process()
        if self._closed:
            raise StreamError("stream pool: closed; open another with codec.stream_pool()")

    def _drop_left(self) -> None:
        while self._left:
            self._seats.discard(self._left.popleft())

    def _move_up(self, seat: Seat) -> None:
        while seat.door and len(seat.jobs) < MAX_WAITING:
            seat.jobs.append(seat.door.popleft())

    def _work(self) -> None:
        while batch := self._next_batch():
            self._run(batch)
            del batch  # a waiting thread must not keep results

    def _run(self, batch: Sequence[tuple[Seat, Job]]) -> None:
        steps = [_begun(job.steps.popleft()) for _, job in batch]
        left, start = dict(enumerate(batch)), time.monotonic()
        try:
            run_together(steps, self._graphs, lambda index, result, error: self._ended(*left.pop(index), result, error))
        except BaseException as error:  # noqa: BLE001 - a fault of this module must not leave clients waiting
            for seat, job in left.values():
                self._ended(seat, job, None, error)
        job_s = (time.monotonic() - start) / len(batch)
        with self._changed:
            self._job_s += (job_s - self._job_s) * (_SHARE_OF_NEW if self._job_s else 1.0)

    def _full(self) -> int:
        """Return how many jobs a batch holds."""
        return max(LEAST_FULL, min(MAX_BATCH, int(BATCH_S / self._job_s))) if self._job_s else MAX_BATCH

    def _next_batch(self) -> list[tuple[Seat, Job]]:
        """Wait for the next batch; empty where the pool is closed."""
        with self._changed:
            self._idle += 1
            try:
                while not self._closed:
                    self._drop_left()
                    seats = list(self._seats)
                    ready = sorted((seat for seat in seats if seat.is_ready), key=lambda seat: seat.since)
                    wait_s = self._wait_s(ready, seats)
                    if wait_s is None or wait_s > 0:
                        self._changed.wait(wait_s)
                    elif batch := self._taken(ready):
                        return batch
                return []
            finally:
                self._idle -= 1

    def _wait_s(self, ready: Sequence[Seat], seats: Sequence[Seat]) -> float | None:
        """Return how long to wait for more seats to be ready; None for no limit."""
        if not ready:
            return None
        if ready[0].due or len(ready) >= self._full() or all(seat.is_ready for seat in seats if seat.active):
            return 0.0
        return ready[0].since + self._max_wait_s - time.monotonic()

    def _taken(self, ready: Sequence[Seat]) -> list[tuple[Seat, Job]]:
        """Start the first job of each seat: this worker's share, at most a full batch."""
        running = sum(seat.running for seat in self._seats)
        share = min(-(-len(ready) // self._idle), -(-(len(ready) + running) // len(self._threads)))
        batch = []
        for seat in ready:
            seat.due = True
        for seat in ready[: min(share, self._full())]:
            seat.due = False
            job = seat.jobs[0]
            if job.result.running() or job.result.set_running_or_notify_cancel():
                seat.running = True
                batch.append((seat, job))
            else:  # cancelled, but not yet withdrawn
                seat.jobs.popleft()
                self._move_up(seat)
        return batch

    def _ended(self, seat: Seat, job: Job, result: Any, error: BaseException | None) -> None:
        """Take the result of a step; hand the job's result out when it was its last."""
        if error is None:
            job.parts.append(result)
        dropped: list[Job] = []
        with self._changed:
            if error is None and job.steps and (self._closed or seat not in self._seats):
                error = StreamError("stream: closed while this push ran")
            seat.running = False
            seat.since = time.monotonic()
            if error is not None or not job.steps:
                seat.jobs.popleft()
                dropped = seat.take_after(job) if error is not None else []
                self._move_up(seat)
            self._changed.notify_all()
        if error is not None:
            job.result.set_exception(error)
        elif not job.steps:
            job.result.set_result(job.parts[0] if len(job.parts) == 1 else np.concatenate(job.parts, axis=-1))
        for waiting in dropped:
            _fail(waiting, StreamError("stream: an earlier push failed while this one waited"))


def _begun(make: MakeStep) -> Step[NDArray[Any]]:
    """Make a step when it is first asked for a call, where an error is its own."""
    return (yield from make())


def _fail(job: Job, error: StreamError) -> None:
    if job.result.running() or job.result.set_running_or_notify_cancel():
        job.result.set_exception(error)
