"""Options of the GPU report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dmcodec.benchmarks.codecs.interface import BUNDLE_PEERS
from dmcodec.errors import ArgumentError

SIDES = tuple(BUNDLE_PEERS)


@dataclasses.dataclass(frozen=True)
class GpuReportOptions:
    """What to run.

    Attributes:
        bundles: each is run on every side.
        sides: some of SIDES; by default all, or none of those on a GPU where there is no GPU.
        durations_s, batches, rounds: as for `dmcodec bench`.
        checkpoint, config: weights for torch, as for `dmcodec bench`.
        timeout_s: of each step.
        command: how it was asked for, for the record.
    """

    bundles: tuple[Path, ...]
    sides: tuple[str, ...] = ()
    durations_s: tuple[float, ...] = (1.0, 10.0)
    batches: tuple[int, ...] = (1, 4, 16)
    rounds: int = 20
    checkpoint: Path | None = None
    config: Path | None = None
    timeout_s: float = 1800.0
    command: str = ""

    def __post_init__(self) -> None:
        for side in self.sides:
            if side not in SIDES:
                raise ArgumentError(f"backend {side!r} is not known; use {', '.join(SIDES)}")
        if not self.timeout_s > 0:
            raise ArgumentError(f"timeout_s must be above 0, not {self.timeout_s:g}")
