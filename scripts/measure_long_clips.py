"""Measure exact encoding of a clip against one piece and against windows: codes, ties, and times in turn.

The same CPUs run all three. A busy machine disturbs times, so look at the ratios of the medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import read_blocks
from dmcodec.export.agreement import tied_frames
from dmcodec.export.reference import GraphReference
from dmcodec.runtime import Codec
from dmcodec.sample import speech

Codes = NDArray[np.int64]


def main() -> None:
    """Read the arguments, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", help="bundle folder (default: dmcodec-small)")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--audio", nargs="*", default=[], help="speech, joined (default: the sample, repeated)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    codec = Codec.load(options.bundle, threads=options.threads)
    waveform = clip(codec, options.audio, options.seconds)
    ways: dict[str, Callable[[], Codes]] = {
        "exact": lambda: codec.encode(waveform, codec.sample_rate).codes.astype(np.int64),
        "one piece": lambda: one_piece(codec, waveform)[1],
        "windows": lambda: codec.encode(waveform, codec.sample_rate, context_s=codec.context_s).codes.astype(np.int64),
    }
    latents, whole = one_piece(codec, waveform)
    codebooks = GraphReference("", codec.config, codec.graphs.arrays).codebooks
    for name, way in ways.items():
        codes = way()
        different = (codes != whole).any(axis=0)
        ties = tied_frames(codebooks, latents, whole[:, None], codes[:, None])[0]
        print(
            f"{name}: {(codes == whole).mean():.4%} of the codes equal to one piece, "
            f"{different.sum()} of {len(different)} frames differ, {ties.sum()} of them by a tie"
        )
    for name, (wall, cpu) in measure(ways, options.rounds).items():
        wall_ms, cpu_ms = 1000 * wall / options.seconds, 1000 * cpu / options.seconds
        print(f"{name}: {wall_ms:.1f} ms a second of audio, {cpu_ms:.1f} of CPU")


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


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Run all ways in turn; return the medians of wall and CPU time, in seconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
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
