"""Result of `dmcodec verify`: frozen values for JSON and tables. Field names are the JSON keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dmcodec.benchmarks.machine import PACKAGES, Machine, describe_machine
from dmcodec.bundle import Manifest
from dmcodec.export.parity import ParityCase, shortfall
from dmcodec.precision import PRECISIONS
from dmcodec.runtime.codec import Codec

FORMAT_VERSION = 1
# Values of `VerifyResult.reference_weights`.
GRAPHS, CHECKPOINT, SEED, BUNDLE = "graphs", "checkpoint", "seed", "bundle"


@dataclasses.dataclass(frozen=True)
class Check:
    """One use of the codec, compared with the reference. Values that don't apply are None.

    Attributes:
        what: the use.
        detail: lengths and numbers of its clips.
        code_agreement, level0_agreement, frame_agreement: shares, 0 to 1; the latter two count ties as equal.
        untied_agreement: share of codes that are equal, or of a frame that differs by a tie only.
        ties: number of frames that differ only by a tie.
        snr_db, max_abs_error: of the audio.
        thresholds: by the name of the value that has one here.
        problem: the value below its threshold, in words; None where there is none.
    """

    what: str
    detail: str
    code_agreement: float | None = None
    level0_agreement: float | None = None
    frame_agreement: float | None = None
    untied_agreement: float | None = None
    ties: int | None = None
    snr_db: float | None = None
    max_abs_error: float | None = None
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class Hashes:
    """SHA-256 of what a result is about, as hex digits.

    Attributes:
        bundle: of the manifest, which holds those of all files.
        weights: of the file of shared weights; None where each graph holds its own.
        graphs: by name.
        checkpoint: of the file that was exported; None where the weights come from a seed.
    """

    bundle: str
    weights: str | None
    graphs: Mapping[str, str]
    checkpoint: str | None

    @classmethod
    def of(cls, manifest: Manifest) -> Hashes:
        """Return the hashes that a manifest names, and its own."""
        return cls(
            bundle=manifest.to_dict()["sha256"],
            weights=manifest.weights.sha256 if manifest.weights else None,
            graphs={name: spec.sha256 for name, spec in manifest.graphs.items()},
            checkpoint=manifest.provenance.get("checkpoint_sha256"),
        )


@dataclasses.dataclass(frozen=True)
class CodecRun:
    """Which codec ran, when and where: what results begin with.

    Attributes:
        date: start in UTC, ISO 8601.
        command: the command line.
        machine: that it ran on.
        bundle, model_id, precision: the bundle that ran.
        backend, provider: where it ran.
        hashes: of the bundle's files.
    """

    date: str
    command: str
    machine: Machine
    bundle: str
    model_id: str
    precision: str
    backend: str
    provider: str
    hashes: Hashes


def codec_run(codec: Codec, date: str, command: str) -> CodecRun:
    """Return what a result about an open codec on this machine begins with."""
    manifest, backend = codec.bundle.manifest, codec.backend
    return CodecRun(
        date=date,
        command=command,
        machine=describe_machine(PACKAGES),
        bundle=str(codec.bundle.path),
        model_id=manifest.model_id,
        precision=manifest.precision,
        backend=f"{backend.name} {backend.version}",
        provider=backend.provider,
        hashes=Hashes.of(manifest),
    )


@dataclasses.dataclass(frozen=True)
class VerifyResult(CodecRun):
    """Result of one verification.

    Attributes:
        reference: name of the reference.
        reference_weights: where it has its weights from: GRAPHS (it is the bundle, too), CHECKPOINT or SEED (those from
            before the export), or BUNDLE (torch with what the bundle holds).
        checkpoint_sha256: of the file that the reference was loaded from; None without one.
        thresholds_of: the precision whose thresholds apply: that of the bundle, or where the reference has exactly the
            same weights, that of the bundle's arithmetic.
        load_s: seconds to load all graphs (an engine that isn't in the cache is built in this time).
        cases: each graph, with the cases of the export.
        checks: uses of the codec.
    """

    reference: str
    thresholds_of: str
    load_s: float
    cases: tuple[ParityCase, ...]
    checks: tuple[Check, ...]
    reference_weights: str
    checkpoint_sha256: str | None

    @property
    def problems(self) -> list[str]:
        """Each value below its threshold, in words."""
        cases = [shortfall(case, self.thresholds_of) for case in self.cases]
        return [problem for problem in (*cases, *(check.problem for check in self.checks)) if problem]

    @property
    def passed(self) -> bool:
        """Whether every value reaches its threshold."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "passed": self.passed,
            "problems": self.problems,
            "thresholds": dataclasses.asdict(PRECISIONS[self.thresholds_of].thresholds),
            **dataclasses.asdict(self),
        }
