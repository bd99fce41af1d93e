"""Many files through a codec: read ahead, computed in batches, and written, all at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from dmcodec.errors import BackendError, DmcodecError

from .batching import Budget, Limits, batches, runs_alone
from .codec import Codec

# Audio of a set of clips, from which batches of similar lengths are made; two sets are in memory, and a third is read.
# The first one is short, so that the computing begins early.
FIRST_SET_S, SET_S, SET_FILES = 30.0, 300.0, 256
READERS, WRITERS = 4, 4

Item = TypeVar("Item")
Given = TypeVar("Given", contravariant=True)
Clip = TypeVar("Clip")
Result = TypeVar("Result")
Facts = dict[str, Any]
Progress = Callable[[float, float], None]


class Work(Protocol[Given, Clip, Result]):
    """What is done with each file. Raises DmcodecError where it can't be done.

    Attributes:
        workers: batches that run at the same time.
        total_s: most seconds of audio in all of them together, padding included; it bounds the memory.
        in_sets: whether a whole set of clips is one call of `compute`, which makes batches of it: on a GPU.
    """

    @property
    def workers(self) -> int: ...

    @property
    def total_s(self) -> float: ...

    @property
    def in_sets(self) -> bool: ...

    def read(self, item: Given) -> tuple[Clip, float] | None:
        """Read a clip; return it and its seconds, or None for one that is too long for a batch. Called in threads."""

    def compute(self, clips: Sequence[Clip], alone: bool) -> list[Result]:
        """Return the result of each clip: the same as for each alone. Called in threads.

        Args:
            clips: of a batch.
            alone: whether no other batch runs meanwhile, so that it may use all threads.
        """

    def write(self, item: Given, result: Result, compute_s: float) -> Facts:
        """Write a result; return what is told of it. Called in threads."""

    def whole(self, item: Given, progress: Progress) -> Facts:
        """Read, compute and write a long clip piece by piece."""


@dataclass(frozen=True)
class Outcome:
    """What became of a file: the facts of `Work.write`, or the error."""

    index: int
    facts: Facts | None = None
    error: DmcodecError | None = None


def clip_codec(codec: Codec) -> tuple[Codec, int]:
    """Return the codec for batches of short clips, and how many batches to run at the same time.

    On the CPU it is a second copy with one thread for each batch: what is computed doesn't depend on the other clips.
    """
    single = codec.backend.single_threaded()
    return (Codec(codec.bundle, single), codec.backend.threads) if single else (codec, 1)


def run_work(
    work: Work[Item, Clip, Result],
    items: Sequence[Item],
    record: Callable[[Outcome], None],
    progress: Callable[[Item], Progress],
) -> None:
    """Do the work on all items; call `record` with each outcome, in the order of the items.

    One item that fails harms no other: a batch that fails is computed clip by clip. After an exception (Ctrl-C) what is
    computed is written and recorded, and the rest is not begun.
    """
    run = _Run(work, items)
    try:
        for index, item in enumerate(items):
            run.feed(index)
            if index in run.long:
                record(_outcome(index, partial(work.whole, item, progress(item))))
            else:
                record(run.outcome(index))
    finally:
        for outcome in run.close():
            record(outcome)


@dataclass
class _Read(Generic[Clip]):
    """A clip that is read. `value` is None for a long one."""

    index: int
    value: tuple[Clip, float] | None
    error: DmcodecError | None = None
    outcome: Future[Outcome] = field(default_factory=Future)


@dataclass
class _Run(Generic[Item, Clip, Result]):
    """The state of `run_work`: files that are read, sets of clips that are computed, outcomes to be recorded."""

    work: Work[Item, Clip, Result]
    items: Sequence[Item]
    reading: deque[Future[_Read[Clip]]] = field(default_factory=deque)
    long: set[int] = field(default_factory=set)
    outcomes: dict[int, Future[Outcome]] = field(default_factory=dict)
    submitted: int = 0  # to the readers
    taken: int = 0  # from the readers
    set_files: int = 8  # of the last set
    set_s: float = FIRST_SET_S  # of the next one

    def __post_init__(self) -> None:
        self.readers = ThreadPoolExecutor(READERS, "read")
        self.computers = ThreadPoolExecutor(self.work.workers, "compute")
        self.total = _milliseconds(self.work.total_s)
        self.budget = Budget(self.total)
        self.writers = ThreadPoolExecutor(WRITERS, "write")

    def outcome(self, index: int) -> Outcome:
        """Return the outcome of a clip, when it is there."""
        return self.outcomes.pop(index).result()

    def close(self) -> list[Outcome]:
        """End the work; return the outcomes that are not yet taken."""
        for pool in (self.readers, self.computers):
            pool.shutdown(cancel_futures=True)
        self.writers.shutdown()
        rest = [future for _, future in sorted(self.outcomes.items()) if future.done() and not future.exception()]
        return [future.result() for future in rest]

    def feed(self, index: int) -> None:
        """Keep two sets of clips after `index` in work, and the next one in reading."""
        while self.taken < len(self.items) and (self.taken <= index or self.taken - index < self.set_files):
            self._next_set()

    def _next_set(self) -> None:
        clips: list[_Read[Clip]] = []
        total_s = 0.0
        while self.taken < len(self.items) and total_s < self.set_s and len(clips) < SET_FILES:
            self._read_ahead()
            read = self.reading.popleft().result()
            self.taken += 1
            if read.error is not None:
                self.outcomes[read.index] = read.outcome
                read.outcome.set_result(Outcome(read.index, error=read.error))
            elif read.value is None:
                self.long.add(read.index)
                break  # what was read before it is computed meanwhile
            else:
                clips.append(read)
                total_s += read.value[1]
        self.set_s = min(SET_S, 2 * self.set_s)
        self._read_ahead()
        if clips:
            self.set_files = len(clips)
            self._compute(clips)

    def _read_ahead(self) -> None:
        while self.submitted < len(self.items) and len(self.reading) < max(8, self.set_files):
            self.reading.append(self.readers.submit(self._read, self.submitted))
            self.submitted += 1

    def _read(self, index: int) -> _Read[Clip]:
        try:
            return _Read(index, self.work.read(self.items[index]))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one file, the others run
            return _Read(index, None, _told(error))

    def _compute(self, clips: list[_Read[Clip]]) -> None:
        lengths = [_milliseconds(read.value[1]) for read in clips if read.value]
        in_batches = batches(lengths, Limits(self.total, self.work.workers))
        for group in [list(range(len(clips)))] if self.work.in_sets else in_batches:
            members = [clips[position] for position in group]
            for read in members:
                self.outcomes[read.index] = read.outcome
            self.computers.submit(self._run_group, members)

    def _run_group(self, group: list[_Read[Clip]]) -> None:
        """Compute a batch, in a thread; where that fails, compute each clip alone."""
        clips = [read.value for read in group if read.value]
        size = len(clips) * max(_milliseconds(seconds) for _, seconds in clips)
        alone = self.work.in_sets or runs_alone(size, self.total, self.work.workers)
        size = max(size, self.total) if alone else size
        self.budget.take(size)
        try:
            with self.budget.given_back(size):
                start = time.perf_counter()
                results = self.work.compute([clip for clip, _ in clips], alone)
                compute_s = time.perf_counter() - start
        except Exception as error:  # noqa: BLE001 - as above
            if len(group) == 1:
                group[0].outcome.set_result(Outcome(group[0].index, error=_told(error)))
                return
            for read in group:
                self._run_group([read])
            return
        per_second = compute_s / sum(seconds for _, seconds in clips)
        for read, result, (_, seconds) in zip(group, results, clips, strict=True):
            self.writers.submit(self._write, read, result, seconds * per_second)

    def _write(self, read: _Read[Clip], result: Result, compute_s: float) -> None:
        read.outcome.set_result(
            _outcome(read.index, partial(self.work.write, self.items[read.index], result, compute_s))
        )


def _milliseconds(seconds: float) -> int:
    return max(1, round(1000 * seconds))


def _outcome(index: int, work: Callable[[], Facts]) -> Outcome:
    try:
        return Outcome(index, work())
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome(index, error=_told(error))


def _told(error: Exception) -> DmcodecError:
    if isinstance(error, DmcodecError):
        return error
    if isinstance(error, MemoryError):
        told: DmcodecError = BackendError("out of memory; use shorter clips, or fewer --threads or --jobs")
    else:
        told = DmcodecError(f"unexpected {type(error).__name__}: {error} (run it alone with --debug and report it)")
    told.__cause__ = error
    return told
