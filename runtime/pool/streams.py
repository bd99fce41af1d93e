"""The streams of a pool: the single streams' logic, with pushes that wait for their batch."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import StreamError
from dmcodec.runtime.calls import Step
from dmcodec.runtime.stream_decoder import StreamDecoder
from dmcodec.runtime.stream_encoder import StreamEncoder

from .scheduler import Job, Scheduler, Seat

if TYPE_CHECKING:
    import asyncio

    from .stream_pool import StreamPool

# A longer push runs in parts of this length, each in another batch, so that it doesn't hold up the others.
PART_S = 0.5
_CANCELLED = "a push was cancelled while it ran, and its result is lost"
_FAILED = "a push failed after a part of it had run"

Single = TypeVar("Single", bound=StreamDecoder | StreamEncoder)


class PooledStream(Generic[Single]):
    """What the streams of a pool have in common: `push`, `finish`, `reset` and `close`, blocking or for asyncio.

    Any thread and any asyncio task may push. Pushes of one stream run one after the other, in the order of the calls.
    A call returns when its own result is there. Four pushes of a stream wait in the pool; the calls of further ones
    wait until there is room.

    A push that is wrong is refused before it waits. Where a graph fails in a batch, its pushes run again one by one, so
    that an error reaches only the push that causes it, and those of the same stream that wait behind it.

    A cancelled `push_async` or `finish_async` is withdrawn if it still waits: the stream is as before. One that runs
    can't be withdrawn: its result is lost, and only `reset` and `close` are left. Ctrl-C in `push` counts as a cancel.
    """

    def __init__(
        self, pool: StreamPool, scheduler: Scheduler, seat: Seat, open_single: Callable[[], Single], part: int
    ) -> None:
        self._pool, self._scheduler, self._seat = pool, scheduler, seat  # the pool lives as long as its streams
        self._open_single, self._part = open_single, part
        self._single = open_single()
        self._lock = threading.Lock()
        self._ended = self._closed = False
        self._lost = ""
        weakref.finalize(self, scheduler.leave_later, seat).atexit = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._single!r}{', closed' if self._closed else ''})"

    def __reduce__(self) -> NoReturn:
        raise StreamError("stream: a stream of a pool can't be pickled or copied; open one where it is used")

    def reset(self) -> None:
        """Start a new clip. Pushes that wait fail with StreamError.

        Raises:
            StreamError: the stream or its pool is closed.
        """
        with self._lock:
            self._check_open()
            self._scheduler.drop_waiting(self._seat, "stream: reset while this push waited")
            self._single = self._open_single()
            self._ended, self._lost = False, ""

    def close(self) -> None:
        """Leave the pool, which makes room for another stream. Pushes that wait fail with StreamError."""
        with self._lock:
            self._closed = True
            self._scheduler.leave(self._seat, "stream: closed while this push waited")

    def _push(self, chunk: Any) -> NDArray[Any]:
        return self._wait(self._submit_push(chunk))

    async def _push_async(self, chunk: Any) -> NDArray[Any]:
        return await self._wait_async(self._submit_push(chunk))

    def _finish(self) -> NDArray[Any]:
        return self._wait(self._submit_finish())

    async def _finish_async(self) -> NDArray[Any]:
        return await self._wait_async(self._submit_finish())

    def _submit_push(self, chunk: Any) -> Job:
        with self._lock:
            self._check_usable("push after finish")
            checked: NDArray[Any] = self._single.checked(chunk)
            cuts = range(self._part, checked.shape[-1], self._part)
            push_step: Callable[[Any], Step[Any]] = self._single.push_step
            steps = [partial(push_step, part) for part in np.split(checked, cuts, axis=-1)]
            return self._submit(Job(steps, self._single))

    def _submit_finish(self) -> Job:
        with self._lock:
            self._check_usable("finished already")
            job = self._submit(Job([self._single.finish_step], self._single, last=True))
            self._ended = True
            return job

    def _submit(self, job: Job) -> Job:
        self._scheduler.submit(self._seat, job)
        return job

    def _wait(self, job: Job) -> NDArray[Any]:
        try:
            error = job.result.exception()
        except BaseException:  # Ctrl-C
            self._abandon(job)
            raise
        return self._result(job, error)

    async def _wait_async(self, job: Job) -> NDArray[Any]:
        import asyncio  # here, since importing it is a fifth of the time to import the runtime

        waiter = asyncio.wrap_future(job.result)
        waiter.add_done_callback(_retrieve)
        try:
            await asyncio.wait([waiter])
        except BaseException:  # the task was cancelled, or its loop has ended
            self._abandon(job)
            raise
        return self._result(job, job.result.exception())

    def _result(self, job: Job, error: BaseException | None) -> NDArray[Any]:
        if error is None:
            return job.result.result()
        with self._lock:
            if job.stream is self._single:
                self._ended &= not job.last
                self._lost = self._lost or (_FAILED if job.parts else "")
        raise error

    def _abandon(self, job: Job) -> None:
        withdrawn = self._scheduler.withdraw(self._seat, job)
        with self._lock:
            if job.stream is not self._single:
                return
            if not withdrawn:
                self._lost = _CANCELLED
            elif job.last:
                self._ended = False

    def _check_open(self) -> None:
        self._scheduler.check_open()
        if self._closed:
            raise StreamError("stream: closed; open another in its pool")

    def _check_usable(self, problem: str) -> None:
        self._check_open()
        if self._ended:
            raise StreamError(f"stream: {problem}; call reset() to start a new clip")
        if self._lost:
            raise StreamError(f"stream: {self._lost}; call reset() to start a new clip")

    def _exit(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not (self._closed or self._lost or self._scheduler.closed):
                self._single.__exit__(kind, error, trace)
        finally:
            self.close()


def _retrieve(waiter: asyncio.Future[Any]) -> None:
    """Look at an error, which asyncio otherwise reports as never retrieved where nobody waits any more."""
    if not waiter.cancelled():
        waiter.exception()


class PooledDecoder(PooledStream[StreamDecoder]):
    """Decodes one clip chunk by chunk, as `StreamDecoder`, in a pool; made by `StreamPool.decoder`."""

    @property
    def look_ahead_frames(self) -> int:
        """Frames that must follow a frame before its audio is returned; fewer at the end of the clip."""
        return self._single.look_ahead_frames

    def push(self, codes: Any) -> NDArray[np.float32]:
        """Add frames; wait for the audio that is final now.

        Args:
            codes: (n_q, frames) integers.

        Returns:
            (samples,) float32, as `StreamDecoder.push` returns.

        Raises:
            TokensError: another shape or number of levels, codes out of range, or no frames. The stream is unchanged.
            StreamError: after `finish` or `close`; or `reset` or `close` was called, or an earlier push failed, while
                this one waited.
            BackendError: a graph failed. The stream is unchanged.
        """
        return self._push(codes)

    async def push_async(self, codes: Any) -> NDArray[np.float32]:
        """Do the same as `push`, in an asyncio task."""
        return await self._push_async(codes)

    def finish(self) -> NDArray[np.float32]:
        """End the clip; wait for the rest of its audio. Raises StreamError and BackendError as `push`."""
        return self._finish()

    async def finish_async(self) -> NDArray[np.float32]:
        """Do the same as `finish`, in an asyncio task."""
        return await self._finish_async()

    def __enter__(self) -> PooledDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)


class PooledEncoder(PooledStream[StreamEncoder]):
    """Encodes one clip chunk by chunk, as `StreamEncoder`, in a pool; made by `StreamPool.encoder`."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the pushed samples, in Hz."""
        return self._single.sample_rate

    @property
    def look_ahead_frames(self) -> int:
        """Frames of the future that the backward LSTM reads."""
        return self._single.look_ahead_frames

    @property
    def delay_s(self) -> float:
        """Seconds of samples to push until the codes of a frame are returned; see `StreamEncoder.delay_samples`."""
        return self._single.delay_s

    def push(self, samples: Any) -> NDArray[np.uint16]:
        """Add samples; wait for the codes that are final now.

        Args:
            samples: (samples,) float32, float64 in [-1, 1] or int16, at `sample_rate`.

        Returns:
            (n_q, frames) uint16, as `StreamEncoder.push` returns.

        Raises:
            AudioError: another shape or dtype, NaN or infinite values. The stream is unchanged.
            StreamError: after `finish` or `close`; or `reset` or `close` was called, or an earlier push failed, while
                this one waited.
            BackendError: a graph failed. The stream is unchanged, but where it resamples only `reset` is left.
        """
        return self._push(samples)

    async def push_async(self, samples: Any) -> NDArray[np.uint16]:
        """Do the same as `push`, in an asyncio task."""
        return await self._push_async(samples)

    def finish(self) -> NDArray[np.uint16]:
        """End the clip; wait for the rest of its codes. Raises StreamError and BackendError as `push`."""
        return self._finish()

    async def finish_async(self) -> NDArray[np.uint16]:
        """Do the same as `finish`, in an asyncio task."""
        return await self._finish_async()

    def __enter__(self) -> PooledEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind, error, trace)
