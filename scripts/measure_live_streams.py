"""Measure numbers of live streams in many rounds, pooled and separate ones in turn.

    python scripts/measure_live_streams.py --bundle BUNDLE [--operation decode] [--pooled 13,14] [--separate 9,10]

Each round runs all numbers once. On a machine whose speed changes from minute to minute this compares the two sides
under the same conditions, which the search of `dmcodec bench --streams` does not. A number holds in a round where the
p99 of its pushes is under 100 ms.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from dmcodec.benchmarks.bench.live_streams import POOLED, SEPARATE, LiveStreams
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
    cases = [(side, int(count)) for side in (POOLED, SEPARATE) for count in getattr(arguments, side).split(",")]
    rounds = [[live.level(arguments.operation, *case) for case in cases] for _ in range(arguments.rounds)]
    for levels in zip(*rounds, strict=True):
        print(row(levels))
    print(f"load average {Path('/proc/loadavg').read_text(encoding='ascii').split()[0]}")


def row(levels: tuple[LiveLevel, ...]) -> str:
    """Return a row of a Markdown table."""
    p50, p99 = (statistics.median(getattr(level, name) for level in levels) * 1e3 for name in ("p50_s", "p99_s"))
    held = sum(level.holds for level in levels)
    return f"| {levels[0].side} | {levels[0].streams} | {p50:.0f} | {p99:.0f} | {held} of {len(levels)} |"


if __name__ == "__main__":
    main()
