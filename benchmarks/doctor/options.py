"""Options of `dmcodec doctor --gpu`, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dmcodec.benchmarks.codecs.registry import BUNDLE_PEERS
from dmcodec.errors import ArgumentError

BACKENDS = tuple(BUNDLE_PEERS)
STREAMS = 100  # live streams at once, on a GPU
BATCH = 16  # the largest of the default


@dataclasses.dataclass(frozen=True)
class GpuReportOptions:
    """What to run for a GPU report.

    Attributes:
        bundles: each runs on every backend.
        backends: some of BACKENDS; by default all, or none on a machine without a GPU.
        durations_s, batches, rounds: as in `BenchOptions`.
        checkpoint, config: weights for torch, as in `BenchOptions`.
        timeout_s: time limit of each step.
        publish: documentation page whose figures are replaced by those of the report; none by default.
        command: the command line, for the record.
    """

    bundles: tuple[Path, ...]
    backends: tuple[str, ...] = ()
    durations_s: tuple[float, ...] = (1.0, 10.0)
    batches: tuple[int, ...] = (1, 4, BATCH)
    rounds: int = 20
    checkpoint: Path | None = None
    config: Path | None = None
    timeout_s: float = 1800.0
    publish: Path | None = None
    command: str = ""

    def __post_init__(self) -> None:
        for backend in self.backends:
            if backend not in BACKENDS:
                raise ArgumentError(f"--backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
        if not self.timeout_s > 0:
            raise ArgumentError(f"timeout_s must be above 0, not {self.timeout_s:g}")
