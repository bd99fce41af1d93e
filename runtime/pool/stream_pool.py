"""The pool that applications open: many live streams of one codec, run together in batches."""

from __future__ import annotations

import gc
import math
import threading
import weakref
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from dmcodec.bundle import encoder_part_names
from dmcodec.errors import ArgumentError, StreamError
from dmcodec.runtime.backend import Graphs

from .arena import StateArena
from .joining import JoinedGraphs
from .scheduler import Scheduler, Seat
from .streams import PART_S, PooledDecoder, PooledEncoder

if TYPE_CHECKING:
    from dmcodec.runtime.codec import Codec

# Graphs, and how many batches run on them at the same time.
Running = tuple[Graphs, int]

MAX_STREAMS = 4096
MAX_WAIT_MS = 1000.0
_DECODER_GRAPHS = ("dequantizer", "decoder_recurrent", "decoder_upsampler")
# States of one kind that a stream can hold at once: the last, the new one, and that at the end of a look-ahead.
_ROWS_PER_STREAM = 3


class StreamPool:
    """Many live streams on one machine, for any number of threads and asyncio tasks; made by `Codec.stream_pool`.

    Pushes that come at about the same time run as one batch, which takes much less time than one after the other. A
    batch starts when its oldest push has waited for `max_wait_ms`, when all streams that are in the middle of a clip
    wait, or when it is full. Streams take turns: who waits longest is in the next batch. On the CPU as many batches run
    at the same time as the codec has threads, with one thread each, and share the pushes that wait. Where the encoder's
    LSTM is larger than the cache that cores share, encoders run one batch at a time on all threads.

    Each stream returns what it would return alone, within 1e-5 of full scale; codes are equal, but for ties that
    rounding decides. Streams may be opened and closed at any time. One that is garbage-collected leaves the pool.

    A pool belongs to the process that made it. Close it, or use it in a `with` block; otherwise it is closed when
    nothing refers to it or to its streams any more, or when Python exits.

    Args:
        codec: whose streams these are.
        encoding: the graphs that run encoders, and how many batches of theirs run at the same time.
        decoding: those of decoders. Where both are the same, the two kinds of streams take turns.
        max_streams: streams that may be open at the same time, 1 to MAX_STREAMS.
        max_wait_ms: longest time that a push waits for others, in milliseconds, 0 to MAX_WAIT_MS.

    Raises:
        ArgumentError: an argument out of range.
    """

    def __init__(
        self, codec: Codec, encoding: Running, decoding: Running, max_streams: int = 64, max_wait_ms: float = 10.0
    ) -> None:
        whole = isinstance(max_streams, (int, np.integer)) and not isinstance(max_streams, bool)
        if not whole or not 1 <= max_streams <= MAX_STREAMS:
            raise ArgumentError(f"max_streams must be a whole number from 1 to {MAX_STREAMS}, not {max_streams!r}")
        number = isinstance(max_wait_ms, (int, float, np.number)) and not isinstance(max_wait_ms, bool)
        if not number or not math.isfinite(max_wait_ms) or not 0 <= max_wait_ms <= MAX_WAIT_MS:
            raise ArgumentError(f"max_wait_ms must be 0 to {MAX_WAIT_MS:g} milliseconds, not {max_wait_ms!r}")
        self.max_streams, self.max_wait_ms = int(max_streams), float(max_wait_ms)
        self._codec, self._encoding, self._decoding = codec, encoding, decoding
        self._arena = StateArena(codec.bundle.manifest.graphs, _ROWS_PER_STREAM * self.max_streams)
        self._schedulers = {
            running: Scheduler(JoinedGraphs(running[0], self._arena), running[1], self.max_wait_ms / 1000)
            for running in dict.fromkeys((encoding, decoding))
        }
        self._joining = threading.Lock()
        self._close = weakref.finalize(self, _close, tuple(self._schedulers.values()))  # also when Python exits

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.num_streams} of {self.max_streams} streams open"
        return f"StreamPool({state}, waits {self.max_wait_ms:g} ms, {self._codec!r})"

    def __reduce__(self) -> NoReturn:
        raise StreamError("stream pool: can't be pickled or copied; open one in the process that uses it")

    @property
    def num_streams(self) -> int:
        """Streams that are open."""
        return sum(scheduler.num_streams for scheduler in self._schedulers.values())

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return all(scheduler.closed for scheduler in self._schedulers.values())

    def decoder(self, n_q: int | None = None, first_level: int = 0) -> PooledDecoder:
        """Open a stream that decodes codes while they arrive. The first one loads its graphs.

        Args:
            n_q: levels of the codes of each push; all from `first_level` on by default.
            first_level: quantizer level of their first row.

        Raises:
            ArgumentError: levels that the codec doesn't have.
            StreamError: `max_streams` streams are open, or the pool is closed.
        """
        open_single = partial(self._codec.stream_decoder, n_q, first_level)
        open_single()  # its errors come first
        self._decoding[0].load(*_DECODER_GRAPHS)
        part = max(1, round(PART_S * self._codec.frame_rate))
        return PooledDecoder(self, *self._place(self._decoding), open_single, part)

    def encoder(
        self, look_ahead_s: float | None = None, sample_rate: int | None = None, n_q: int | None = None
    ) -> PooledEncoder:
        """Open a stream that encodes samples while they arrive. The first one loads its graphs.

        Args:
            look_ahead_s: seconds of future that the encoder reads, rounded up to frames; `Codec.look_ahead_s` by
                default.
            sample_rate: of the samples, in Hz; the codec's by default.
            n_q: quantizer levels to return, from level 0 on; all by default.

        Raises:
            ArgumentError: an argument out of range, or backend tensorrt, which has no engines for it.
            BundleError: the bundle lacks the graphs; an earlier dmcodec exported it.
            StreamError: `max_streams` streams are open, or the pool is closed.
        """
        open_single = partial(self._codec.stream_encoder, look_ahead_s, sample_rate, n_q)
        rate = open_single().sample_rate
        self._encoding[0].load(*encoder_part_names(self._codec.config), "quantizer")
        part = max(1, round(PART_S * rate))
        return PooledEncoder(self, *self._place(self._encoding), open_single, part)

    def close(self) -> None:
        """Close all streams and end the pool, after the batch that runs. Pushes that wait fail with StreamError."""
        self._close()

    def __enter__(self) -> StreamPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _place(self, running: Running) -> tuple[Scheduler, Seat]:
        """Return the scheduler of a new stream, and its seat there."""
        scheduler = self._schedulers[running]
        scheduler.check_open()  # before the lock, which a fork may have left locked
        if self.num_streams >= self.max_streams:
            gc.collect()  # streams in circles of references have not left yet
        with self._joining:
            if self.num_streams >= self.max_streams:
                raise StreamError(
                    f"stream pool: all {self.max_streams} streams are open (max_streams={self.max_streams}); close "
                    "one, or open a pool with a larger max_streams"
                )
            return scheduler, scheduler.join()


def _close(schedulers: Sequence[Scheduler]) -> None:
    for scheduler in schedulers:
        scheduler.close()
