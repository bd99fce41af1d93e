"""Measure exact encoding of clips against one piece and against windows: codes, ties, and times in turn.

    python scripts/measure_long_clips.py [--bundle BUNDLE] [--seconds 30,150] [--spool DIR]

The same CPUs run all ways and lengths, in turn (A B A B). A busy machine disturbs times, so look at the ratios of the
medians. Clips of more than two minutes run in one piece nowhere, so they have no codes to compare with.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import read_blocks
from dmcodec.benchmarks.load import LoadWatch
from dmcodec.export.agreement import tied_frames
from dmcodec.export.reference import GraphReference
from dmcodec.runtime import Codec
from dmcodec.sample import speech

Codes = NDArray[np.int64]
Way = tuple[float, str]
ONE_PIECE = "one piece"
MAX_ONE_PIECE_S = 120.0


def main() -> None:
    """Read the arguments, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="bundle folder (default: dmcodec-small)")
    parser.add_argument("--seconds", default="100", help="lengths of clips (default: %(default)s)")
    parser.add_argument("--spool", help="`memory`, or a folder for temporary files (default: as long clips need it)")
    parser.add_argument("--audio", nargs="*", default=[], help="speech, joined (default: the sample, repeated)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    codec = Codec.load(options.bundle, threads=options.threads)
    watch = LoadWatch(codec.backend.threads)
    runs: dict[Way, Callable[[], Codes]] = {}
    for seconds in (float(part) for part in options.seconds.split(",")):
        waveform = clip(codec, options.audio, seconds)
        ways = ways_of(codec, waveform, options.spool)
        if ONE_PIECE in ways:
            compare(codec, waveform, ways, seconds)
        runs.update({(seconds, name): way for name, way in ways.items()})
    print("| clip | way | ms a second of audio | of CPU |\n|---|---|---|---|")
    for (seconds, name), (wall, cpu) in measure(runs, options.rounds).items():
        print(f"| {seconds:g} s | {name} | {1000 * wall / seconds:.1f} | {1000 * cpu / seconds:.1f} |")
    load = watch.stop()
    print("\n".join(filter(None, (load.line(), load.warning()))))


def ways_of(codec: Codec, waveform: NDArray[np.float32], spool: str | None) -> dict[str, Callable[[], Codes]]:
    """Return the ways to encode a clip, by name."""

    def encoded(context_s: float | None) -> Codes:
        place = spool if context_s is None else None
        return codec.encode(waveform, codec.sample_rate, context_s=context_s, spool=place).codes.astype(np.int64)

    ways: dict[str, Callable[[], Codes]] = {"exact": lambda: encoded(None)}
    if len(waveform) <= MAX_ONE_PIECE_S * codec.sample_rate:
        ways[ONE_PIECE] = lambda: one_piece(codec, waveform)[1]
    ways["windows"] = lambda: encoded(codec.context_s)
    return ways


def compare(codec: Codec, waveform: NDArray[np.float32], ways: dict[str, Callable[[], Codes]], seconds: float) -> None:
    """Print how many codes each way has in common with one piece, ties apart."""
    latents, whole = one_piece(codec, waveform)
    codebooks = GraphReference("", codec.config, codec.graphs.arrays).codebooks
    for name, way in ways.items():
        codes = way()
        different = (codes != whole).any(axis=0)
        ties = tied_frames(codebooks, latents, whole[:, None], codes[:, None])[0]
        print(
            f"{seconds:g} s, {name}: {(codes == whole).mean():.4%} of the codes equal to one piece, "
            f"{different.sum()} of {len(different)} frames differ, {ties.sum()} of them by a tie"
        )


def clip(codec: Codec, audio: list[str], seconds: float) -> NDArray[np.float32]:
    """Return the speech to encode."""
    samples = round(seconds * codec.sample_rate)
    parts = [block for path in audio for block in read_blocks(path, codec.sample_rate)]
    joined = np.concatenate(parts) if parts else speech(10 * codec.sample_rate, codec.sample_rate)
    return np.tile(joined, -(-samples // len(joined)))[:samples]


def one_piece(codec: Codec, waveform: NDArray[np.float32]) -> tuple[NDArray[np.float32], Codes]:
    """Return latents [1, dimension, frames] and codes of the whole graph."""
    latents = codec.run_graph("encoder", waveform=waveform[None, None], lengths=np.array([len(waveform)]))
    parts = [
        codec.run_graph("quantizer", latents=np.ascontiguousarray(latents[:, :, first : first + 1000]))[:, 0]
        for first in range(0, latents.shape[2], 1000)
    ]
    return latents, np.concatenate(parts, axis=1)


def measure(ways: dict[Way, Callable[[], Any]], rounds: int) -> dict[Way, tuple[float, float]]:
    """Run all ways in turn; return the medians of wall and CPU time, in seconds."""
    times: dict[Way, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            way()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {
        name: (float(np.median([wall for wall, _ in each])), float(np.median([cpu for _, cpu in each])))
        for name, each in times.items()
    }


if __name__ == "__main__":
    main()
