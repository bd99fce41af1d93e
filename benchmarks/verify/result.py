"""What was verified, as frozen values for JSON and tables."""

from __future__ import annotations

import dataclasses
from typing import Any

from dmcodec.benchmarks.machine import Machine
from dmcodec.export.parity import ParityCase, shortfall
from dmcodec.precision import PRECISIONS

FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that users do with the codec, held against the reference; figures that don't apply are None.

    Attributes:
        what: what was done.
        detail: with what.
        code_agreement, level0_agreement, frame_agreement: shares of 0 to 1; the latter two count ties as equal.
        ties: frames that differ by a tie only.
        snr_db, max_abs_error: of the audio.
        problem: the figure below its bound, in words; None where all is well.
    """

    what: str
    detail: str
    code_agreement: float | None = None
    level0_agreement: float | None = None
    frame_agreement: float | None = None
    ties: int | None = None
    snr_db: float | None = None
    max_abs_error: float | None = None
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class VerifyResult:
    """One whole verification.

    Attributes:
        date: start in UTC, ISO 8601.
        bundle, model_id, precision: what was run.
        backend, provider: on what.
        reference: what it was held against.
        thresholds_of: the precision whose thresholds count: the bundle's, or where the reference has the very same
            weights, that of its arithmetic.
        load_s: seconds that loading all graphs took (for an engine that isn't in the cache: building it).
        cases: graph by graph, as at export.
        checks: what users do.
    """

    date: str
    command: str
    machine: Machine
    bundle: str
    model_id: str
    precision: str
    backend: str
    provider: str
    reference: str
    thresholds_of: str
    load_s: float
    cases: tuple[ParityCase, ...]
    checks: tuple[Check, ...]

    @property
    def problems(self) -> list[str]:
        """Every figure below its threshold, in words."""
        cases = [shortfall(case, self.thresholds_of) for case in self.cases]
        return [problem for problem in (*cases, *(check.problem for check in self.checks)) if problem]

    @property
    def passed(self) -> bool:
        """Whether every figure reaches its threshold."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "passed": self.passed,
            "problems": self.problems,
            "thresholds": dataclasses.asdict(PRECISIONS[self.thresholds_of].thresholds),
            **dataclasses.asdict(self),
        }
