"""Timing of calls: percentiles, real-time factors and paired ratios; and the type of progress reports."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Called with the name of the stage, the number of its steps that are done, and the number of all its steps.
Progress = Callable[[str, int, int], None]


def no_progress(_stage: str, _done: int, _total: int) -> None:
    """Report nothing."""


def timed(function: Callable[..., NDArray[Any]], *args: Any, **kwargs: Any) -> tuple[float, NDArray[Any]]:
    """Call the function; return the seconds that it took, and its result."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


@dataclasses.dataclass(frozen=True)
class Timing:
    """Steady-state times of one operation.

    Attributes:
        n: number of runs.
        p25_s, p50_s, p75_s, p95_s, p99_s: percentiles, interpolated linearly between ranks.
        runs_s: each run, in order.
    """

    n: int
    p25_s: float
    p50_s: float
    p75_s: float
    p95_s: float
    p99_s: float
    runs_s: tuple[float, ...]

    @classmethod
    def of(cls, runs_s: Sequence[float]) -> Timing:
        """Summarise the times of at least one run."""
        p25, p50, p75, p95, p99 = np.percentile(runs_s, (25, 50, 75, 95, 99)).tolist()
        return cls(len(runs_s), p25, p50, p75, p95, p99, tuple(runs_s))


@dataclasses.dataclass(frozen=True)
class Speed:
    """RTF = compute time / audio time (smaller is faster); xRT = 1 / RTF, the throughput in audio s per s."""

    rtf: float
    xrt: float

    @classmethod
    def of(cls, compute_s: float, audio_s: float) -> Speed:
        """Return the speed of a run of `compute_s` seconds for `audio_s` seconds of audio, summed over the batch."""
        return cls(rtf=compute_s / audio_s, xrt=audio_s / compute_s)


def paired_speedup(runs_s: Sequence[float], peer_runs_s: Sequence[float]) -> float:
    """Return the median over the pairs of peer time / time: above 1 where the codec is faster than its peer.

    The i-th runs of both follow each other (interleaved timing), so that background load affects both equally.
    """
    return paired_quartiles(runs_s, peer_runs_s)[1]


def paired_quartiles(runs_s: Sequence[float], peer_runs_s: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles over the pairs of peer time / time: lower, median and upper."""
    ratios = [peer / own for own, peer in zip(runs_s, peer_runs_s, strict=True)]
    low, middle, high = np.percentile(ratios, (25, 50, 75)).tolist()
    return low, middle, high
