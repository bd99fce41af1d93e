"""Running something with a stopwatch, and telling how far the work has come."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# FOLDED: What is said of repeated times: percentiles, RTF and xRT, and ratios of paired runs.


# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


def timed(work: Callable[..., NDArray[Any]], *args: Any, **kwargs: Any) -> tuple[float, NDArray[Any]]:
    """Seconds that `work` took on the arguments, and its result."""
    start = time.perf_counter()
    result = work(*args, **kwargs)
    return time.perf_counter() - start, result


@dataclasses.dataclass(frozen=True)
class Timing:
    """Steady-state times of one operation: `n` runs, their percentiles (linear between ranks), and each in order."""

    n: int
    p50_s: float
    p95_s: float
    p99_s: float
    runs_s: tuple[float, ...]

    @classmethod
    def of(cls, runs_s: Sequence[float]) -> Timing:
        """Summarises the times of at least one run."""
        p50, p95, p99 = (float(value) for value in np.percentile(runs_s, (50, 95, 99)))
        return cls(len(runs_s), p50, p95, p99, tuple(runs_s))


@dataclasses.dataclass(frozen=True)
class Speed:
    """RTF = compute time / audio time (smaller is faster); xRT, its inverse, is the throughput in audio s per s."""

    rtf: float
    xrt: float

    @classmethod
    def of(cls, compute_s: float, audio_s: float) -> Speed:
        """Speed of a run that took `compute_s` for `audio_s` seconds of audio (all clips of a batch together)."""
        return cls(rtf=compute_s / audio_s, xrt=audio_s / compute_s)


def paired_speedup(runs_s: Sequence[float], peer_runs_s: Sequence[float]) -> float:
    """Median over the pairs of peer time / time: above 1 where the first side is faster.

    The i-th runs of both sides stood next to each other, so what else the machine did weighs on both.
    """
    return float(np.median([peer / own for own, peer in zip(runs_s, peer_runs_s, strict=True)]))
