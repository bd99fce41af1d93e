"""Measure numbers of live streams in many rounds, pooled and separate ones in turn.

    python scripts/measure_live_streams.py --bundle BUNDLE [--operation decode] [--pooled 13,14] [--separate 9,10]

Each round runs all numbers once. On a machine whose speed changes from minute to minute this compares the two sides
under the same conditions, which the search of `dmcodec bench --streams` does not. A number holds in a round where the
p99 of its pushes is under 100 ms. The last line has the largest number that held in a round: medians of both sides, and
of their ratio in rounds where both held some number.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from dmcodec.benchmarks.bench.live_streams import SIDES, LiveStreams, typical
from dmcodec.benchmarks.bench.options import BenchOptions
from dmcodec.benchmarks.bench.result import LiveLevel
from dmcodec.benchmarks.codecs.bundle import BundleCodec
from dmcodec.runtime import Codec


def main() -> None:
    """Measure what the arguments name; print a row for each number, and the load of the machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--operation", choices=("encode", "decode"), default="decode")
    parser.add_argument("--pooled", default="13,14,15,16", help="numbers of streams (default: %(default)s)")
    parser.add_argument("--separate", default="9,10,11", help="numbers of streams (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    live = LiveStreams(BundleCodec(Codec.load(arguments.bundle)), BenchOptions(live_s=3.0))
    cases = [(side, int(count)) for side in SIDES for count in getattr(arguments, side).split(",")]
    rounds = [[live.level(arguments.operation, *case) for case in cases] for _ in range(arguments.rounds)]
    for levels in zip(*rounds, strict=True):
        print(row(levels))
    print(largest(rounds))
    print(f"load average {os.getloadavg()[0]:.2f}")


def row(levels: tuple[LiveLevel, ...]) -> str:
    """Return a row of a Markdown table."""
    level, held = typical(levels), sum(level.holds for level in levels)
    latencies = f"{level.p50_s * 1e3:.0f} | {level.p99_s * 1e3:.0f}"
    return f"| {level.side} | {level.streams} | {latencies} | {held} of {len(levels)} |"


def largest(rounds: Sequence[Sequence[LiveLevel]]) -> str:
    """Return a line on the largest numbers that held in the rounds."""
    held = [[max((each.streams for each in one if each.side == side and each.holds), default=0) for side in SIDES]
            for one in rounds]  # fmt: skip
    pooled, separate = (statistics.median(counts) for counts in zip(*held, strict=True))
    ratios = [numbers[0] / numbers[1] for numbers in held if all(numbers)]
    median = f"{statistics.median(ratios):.2f}" if ratios else "-"
    single = ", ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
    return f"largest that held: {SIDES[0]} {pooled:g}, {SIDES[1]} {separate:g}; ratio of a round {median} ({single})"


if __name__ == "__main__":
    main()
