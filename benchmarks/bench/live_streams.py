"""Many live streams at once: the latency of their pushes, and how many the machine keeps up with.

Each stream pushes 100 ms at a time, when a microphone or a network would have delivered it; the streams' phases are
spread evenly. The latency of a push is the time from then until its result is there, so that lateness adds up where
the machine falls behind. Streams in a pool are compared with separate streams, which share the CPUs through a thread
pool with a thread for each, on sessions of one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.codecs.bundle import BundleCodec, open_bundle
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import encoder_part_names
from dmcodec.runtime.codec import Codec
from dmcodec.sample import speech

from .options import MAX_STREAMS, BenchOptions
from .result import OPERATIONS, LiveCapacity, LiveLevel, LiveResult

POOLED, SEPARATE = SIDES = ("pooled", "separate")
CHUNK_S = 0.1
LIMIT_S = 0.1  # a push must be done before the next one comes
_WARM_UP_S = 1.0
TRIES = 3

# Runs one push of one stream.
Push = Callable[[NDArray[Any]], Awaitable[object]]


class LiveStreams:
    """Measures numbers of live streams of a bundle, pooled and separate."""

    def __init__(self, bundle: BundleCodec, options: BenchOptions) -> None:
        self.codec, self._options = bundle.codec, options
        self._sides = {POOLED: self.codec, SEPARATE: _single_threaded(self.codec, options)}
        self._chunks = {operation: _chunks(self.codec, operation) for operation in OPERATIONS}

    def level(self, operation: str, side: str, count: int) -> LiveLevel:
        """Run `count` streams of one side in real time, after a warm-up."""
        chunks, threads = self._chunks[operation], self.codec.backend.threads
        return _measure(self._sides[side], operation, side, count, chunks, self._options.live_s, threads)


def measure_live_streams(bundle: BundleCodec, options: BenchOptions, progress: Progress) -> LiveResult:
    """Measure all numbers of streams in `options.streams`, and search for the largest that holds, pooled and separate.

    Each number is measured TRIES times, the sides in turn; the level has the medians.

    Encoding is left out where the bundle or the backend has no live encoding.
    """
    live, codec = LiveStreams(bundle, options), bundle.codec
    encodes = codec.bundle.manifest.has_encoder_parts and codec.backend.name == "onnxruntime"
    levels: list[LiveLevel] = []
    capacities: list[LiveCapacity] = []
    for operation in OPERATIONS if encodes else OPERATIONS[1:]:
        stage = f"{operation} in live streams"
        for done, count in enumerate(options.streams):
            progress(stage, done, len(options.streams) + 1)
            tries = [[live.level(operation, side, count) for side in SIDES] for _ in range(TRIES)]
            levels += [typical(level) for level in zip(*tries, strict=True)]
        progress(stage, len(options.streams), len(options.streams) + 1)
        capacities += [largest_that_holds(operation, side, partial(live.level, operation, side)) for side in SIDES]
        progress(stage, len(options.streams) + 1, len(options.streams) + 1)
    return LiveResult(CHUNK_S, LIMIT_S, tuple(levels), tuple(capacities))


def typical(tries: Sequence[LiveLevel]) -> LiveLevel:
    """Return the medians of several measurements of a level, and all their pushes."""
    p50_s, p99_s = (statistics.median(getattr(level, name) for level in tries) for name in ("p50_s", "p99_s"))
    pushes = sum(level.pushes for level in tries)
    return dataclasses.replace(tries[0], pushes=pushes, p50_s=p50_s, p99_s=p99_s, holds=p99_s < LIMIT_S)


def largest_that_holds(operation: str, side: str, measured: Callable[[int], LiveLevel]) -> LiveCapacity:
    """Double the number of streams until it no longer holds, then halve the interval.

    A number that doesn't hold is tried TRIES times: in a slow second of a shared machine few streams do.
    """

    def holds(count: int) -> bool:
        return any(measured(count).holds for _ in range(TRIES))

    low, high = 0, 1
    while high <= MAX_STREAMS and holds(high):
        low, high = high, 2 * high
    if high > MAX_STREAMS:
        return LiveCapacity(operation, side, low, is_lower_bound=True)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return LiveCapacity(operation, side, low, is_lower_bound=False)


def _single_threaded(codec: Codec, options: BenchOptions) -> Codec:
    if codec.backend.single_threaded() is None:
        return codec
    return open_bundle(codec.bundle.path, options.backend, options.provider, 1, device_id=options.device_id)


def _chunks(codec: Codec, operation: str) -> list[NDArray[Any]]:
    """Return ten seconds of pushes; streams begin at different ones."""
    if operation == "decode":
        frames = round(CHUNK_S * codec.frame_rate)
        return list(np.random.default_rng(0).integers(codec.codebook_size, size=(100, codec.n_q, frames)))
    samples = round(CHUNK_S * codec.sample_rate)
    return list(speech(100 * samples, codec.sample_rate).reshape(100, samples))


def _measure(
    codec: Codec, operation: str, side: str, count: int, chunks: Sequence[NDArray[Any]], duration_s: float, threads: int
) -> LiveLevel:
    with _open_streams(codec, operation, side, count, threads) as pushes:
        latencies_s = asyncio.run(_run(pushes, chunks, duration_s))
    p50, p99 = (float(value) for value in np.percentile(latencies_s, (50, 99)))
    return LiveLevel(operation, side, count, len(latencies_s), p50, p99, p99 < LIMIT_S)


def _load(codec: Codec, operation: str) -> None:
    if operation == "decode":
        codec.load_graphs("dequantizer", "decoder_recurrent", "decoder_upsampler")
    else:
        codec.load_graphs(*encoder_part_names(codec.config), "quantizer")


@contextlib.contextmanager
def _open_streams(codec: Codec, operation: str, side: str, count: int, threads: int) -> Iterator[list[Push]]:
    """Open streams on one side; yield the function that pushes into each."""
    if side == POOLED:
        with codec.stream_pool(max_streams=count) as pool:
            streams = [pool.decoder() if operation == "decode" else pool.encoder() for _ in range(count)]
            yield [stream.push_async for stream in streams]
        return
    _load(codec, operation)
    with ThreadPoolExecutor(threads) as executor:

        async def push(stream: Any, chunk: NDArray[Any]) -> object:
            return await asyncio.get_running_loop().run_in_executor(executor, stream.push, chunk)

        singles = [codec.stream_decoder() if operation == "decode" else codec.stream_encoder() for _ in range(count)]
        yield [partial(push, single) for single in singles]


async def _run(pushes: Sequence[Push], chunks: Sequence[NDArray[Any]], duration_s: float) -> list[float]:
    """Run all streams in real time; return the latencies of the pushes after the warm-up."""
    start = time.perf_counter() + CHUNK_S

    async def client(index: int, push: Push) -> list[float]:
        latencies_s, number = [], 0
        due = start + CHUNK_S * index / len(pushes)
        while (now := time.perf_counter()) < start + _WARM_UP_S + duration_s:
            await asyncio.sleep(max(0.0, due - now))
            await push(chunks[(index + number) % len(chunks)])
            if due >= start + _WARM_UP_S:
                latencies_s.append(time.perf_counter() - due)
            due += CHUNK_S
            number += 1
        return latencies_s

    results = await asyncio.gather(*(client(index, push) for index, push in enumerate(pushes)))
    latencies_s = [latency_s for result in results for latency_s in result]
    # Where no push after the warm-up was reached, the machine is behind by more than the whole measurement.
    return latencies_s or [duration_s]
