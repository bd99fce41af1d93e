"""Workers: calls that run at the same time, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Workers:
    """Threads that run calls; with one, calls run where they are made. Results don't depend on their number."""

    def __init__(self, count: int, pool: ThreadPoolExecutor | None) -> None:
        self._count, self._pool = count, pool

    @classmethod
    @contextmanager
    def start(cls, count: int) -> Iterator[Workers]:
        """Start `count` threads for the length of the block; after an error, calls that wait are not run."""
        if count == 1:
            yield cls(1, None)
            return
        pool = ThreadPoolExecutor(count)
        try:
            yield cls(count, pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def in_order(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """Yield function(item) of each item. At most two calls for each worker wait; items are taken as needed."""
        if self._pool is None:
            yield from map(function, items)
            return
        pending: deque[Future[_Result]] = deque()
        for item in items:
            pending.append(self._pool.submit(function, item))
            if len(pending) >= 2 * self._count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def together(self, calls: Sequence[Callable[[], _Result]]) -> list[_Result]:
        """Run calls at the same time; return their results when all have ended."""
        if self._pool is None or len(calls) == 1:
            return [call() for call in calls]
        futures = [self._pool.submit(call) for call in calls]
        return [future.result() for future in futures]
