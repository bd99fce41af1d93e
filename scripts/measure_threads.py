"""Measure how many CPU threads suit streams and clips, on an idle and on a loaded machine.

    python scripts/measure_threads.py [BUNDLE] [--threads 1,2] [--rounds 5] [--busy 2]

The numbers of threads take turns in each round (A B A B), so that background load affects them equally. Then `--busy`
processes that compute all the time are started, and everything is measured again. All times are wall clock.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmcodec.cpus import usable_cpus
from dmcodec.runtime import Codec
from dmcodec.sample import speech

CHUNK_FRAMES = 5  # 100 ms
STREAM_S = 10.0
CLIPS_S = (1.0, 10.0)


def main() -> None:
    """Measure what the arguments name, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", nargs="?", type=Path, help="by default the bundle that comes with dmcodec")
    parser.add_argument("--threads", default=f"1,{usable_cpus()}", help="numbers of threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=usable_cpus(), help="processes that make the machine busy")
    arguments = parser.parse_args()
    counts = [int(part) for part in arguments.threads.split(",")]
    codecs = {count: Codec.load(arguments.bundle, threads=count) for count in counts}
    print(f"{codecs[counts[0]]}, {usable_cpus()} usable CPUs, load average {os.getloadavg()[0]:.1f}\n")
    print(
        "| machine | work | " + " | ".join(f"{count} threads" for count in counts) + f" | {counts[0]} / {counts[-1]} |"
    )
    print("|---|---|" + "---|" * (len(counts) + 1))
    table("no other process of ours", codecs, arguments.rounds)
    if arguments.busy == 0:
        return
    with busy(arguments.busy):
        table(f"{arguments.busy} busy processes", codecs, arguments.rounds)


def table(machine: str, codecs: dict[int, Codec], rounds: int) -> None:
    """Print the rows of one state of the machine."""
    pushes: dict[int, list[float]] = {count: [] for count in codecs}
    codes = np.random.default_rng(0).integers(0, 64, size=(8, round(STREAM_S * 50)))
    for turn in range(rounds + 1):  # the first is to warm up
        for count, codec in codecs.items():
            pushes[count] += stream(codec, codes) if turn else stream(codec, codes)[:0]
    for name, q in (("p50", 50), ("p99", 99)):
        row(
            machine,
            f"push of {CHUNK_FRAMES * 20} ms, {name}",
            {n: float(np.percentile(t, q)) for n, t in pushes.items()},
        )
    for duration_s in CLIPS_S:
        waveform = speech(round(duration_s * 16000), 16000)
        tokens = next(iter(codecs.values())).encode(waveform, 16000)
        times: dict[str, dict[int, list[float]]] = {name: {n: [] for n in codecs} for name in ("encode", "decode")}
        for turn in range(rounds + 1):
            for count, codec in codecs.items():
                encode_s = timed(codec.encode, waveform, 16000)
                decode_s = timed(codec.decode, tokens)
                if turn:
                    times["encode"][count].append(encode_s)
                    times["decode"][count].append(decode_s)
        for name, by_count in times.items():
            found = {count: float(np.median(runs)) for count, runs in by_count.items()}
            row(machine, f"{name} of {duration_s:g} s, median", found)


def stream(codec: Codec, codes: NDArray[np.int64]) -> list[float]:
    """Return the seconds of each push of a stream."""
    found = []
    with codec.stream_decoder() as decoder:
        for place in range(0, codes.shape[1], CHUNK_FRAMES):
            start = time.perf_counter()
            decoder.push(codes[:, place : place + CHUNK_FRAMES])
            found.append(time.perf_counter() - start)
        decoder.finish()
    return found


def timed(call: Callable[..., object], *arguments: object) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def row(machine: str, work: str, values_s: dict[int, float]) -> None:
    """Print one row in milliseconds, with the ratio of the first to the last."""
    values = list(values_s.values())
    cells = " | ".join(f"{1000 * value:.1f} ms" for value in values)
    print(f"| {machine} | {work} | {cells} | {values[0] / values[-1]:.2f} |", flush=True)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep `processes` CPUs busy within the block."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=spin, daemon=True) for _ in range(processes)]
    for process in started:
        process.start()
    time.sleep(2)
    try:
        yield
    finally:
        for process in started:
            process.kill()


def spin() -> None:
    """Compute for ever."""
    while True:
        sum(range(10**6))


if __name__ == "__main__":
    main()
