"""A proof: what `verify`, the conformance suite or an export found, in the order in which the proof page shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dmcodec.benchmarks.bench.result_tables import gpu_line
from dmcodec.benchmarks.machine import PACKAGES, Machine, describe_machine, utc_now
from dmcodec.benchmarks.page_paths import PathFilter, last_part, paths_in_command, without_paths_in_command
from dmcodec.benchmarks.tables import Table, count_of
from dmcodec.bundle import Bundle
from dmcodec.export.parity import ParityCase
from dmcodec.precision import PRECISIONS, Thresholds

from .conformance import ConformanceResult
from .figures import IDENTICAL, INAUDIBLE, TIE, Figure, worst_of_cases, worst_of_parts
from .result import GRAPHS, CodecRun, Hashes, VerifyResult
from .result_tables import case_table, conformance_table, verify_tables
from .words import PASSED, Scope, conformance_scope, count_ties, figures_of, scope, verdict


@dataclasses.dataclass(frozen=True)
class Proof:
    """The content of a proof page, as text.

    Attributes:
        subject: the bundle's name.
        verdict: one word.
        sentence: what was compared with what.
        problems: every figure below its threshold.
        scope: what is proven where it passes, and what is not.
        mixing: why tokens must not be mixed with others; None where they may.
        figures: the worst of each kind.
        ties: how many frames differ by a tie only, in words.
        facts: tables of names and values: hashes, versions, machine.
        details: every case.
        date: start in UTC, ISO 8601.
    """

    subject: str
    verdict: str
    sentence: str
    problems: tuple[str, ...]
    scope: Scope
    mixing: str | None
    figures: tuple[Figure, ...]
    ties: str
    facts: tuple[Table, ...]
    details: tuple[Table, ...]
    date: str

    @property
    def passed(self) -> bool:
        """Whether every figure reaches its threshold."""
        return self.verdict == PASSED

    @property
    def notes(self) -> tuple[str, ...]:
        """Explanations of the words in the tables."""
        return (TIE, INAUDIBLE, IDENTICAL)


def proof_of_verify(result: VerifyResult) -> Proof:
    """Return the proof of a verification."""
    weights = "" if result.checkpoint_sha256 is None else f" (checkpoint {result.checkpoint_sha256[:16]})"
    own = " with the bundle's own graphs, each clip alone" if result.reference_weights == GRAPHS else ""
    reference = {
        "Reference": result.reference,
        "Weights of the reference": f"{result.reference_weights}{weights}",
        "Thresholds of": result.thresholds_of,
    }
    return Proof(
        **_shared(result),
        sentence=f"{result.backend} on {result.provider} against {result.reference}{own}, thresholds of "
        f"{result.thresholds_of}: {count_of(len(result.cases), 'case')} graph by graph and "
        f"{count_of(len(result.checks), 'check')} of the codec in use.",
        problems=_shown(result, result.problems),
        scope=scope(result),
        figures=tuple(figures_of(result)),
        ties=f"{count_of(count_ties(result), 'frame')} of all cases and checks.",
        facts=(*_facts(result.hashes, result.machine, result.checkpoint_sha256), _run_table(result, reference)),
        details=tuple(verify_tables(result)),
    )


def proof_of_conformance(result: ConformanceResult) -> Proof:
    """Return the proof of a run of the conformance suite."""
    ties = sum(outcome.ties or 0 for outcome in result.outcomes)
    return Proof(
        **_shared(result),
        sentence=f"{result.verdict[:1].upper()}{result.verdict[1:]}. {result.backend} on {result.provider} against "
        f"{result.against}, {count_of(len(result.outcomes), 'case')}.",
        problems=_shown(result, result.problems),
        scope=conformance_scope(result),
        figures=(),
        ties=f"{count_of(ties, 'frame')} of all cases.",
        facts=(*_facts(result.hashes, result.machine), _run_table(result, {"Expected values": result.against})),
        details=(conformance_table(result),),
    )


def proof_of_export(bundle: Bundle, command: str = "") -> Proof:
    """Return the proof of an export that wrote this bundle: a bundle is written only where every figure passes."""
    manifest, machine = bundle.manifest, describe_machine(PACKAGES)
    parity = manifest.parity
    cases = [ParityCase(**case) for case in parity["cases"]]
    names = {field.name for field in dataclasses.fields(Thresholds)}
    bounds = Thresholds(**{name: value for name, value in parity["thresholds"].items() if name in names})
    thresholds_of = next((row.name for row in PRECISIONS.values() if row.thresholds == bounds), manifest.precision)
    provenance = {
        **{f"{name}": value for name, value in manifest.provenance.items() if isinstance(value, str | int)},
        "date": utc_now(),
    }
    if command:
        provenance["command"] = without_paths_in_command(command)
    not_proven = (
        "that other backends, machines and versions compute the same: `dmcodec verify` there proves it",
        "that the speech sounds good: `dmcodec evaluate` measures that",
    )
    weights = "the checkpoint" if manifest.provenance.get("checkpoint_sha256") else "the seed"
    if "first_export" in manifest.provenance:
        weights = "the bundle that was written again"
    return Proof(
        subject=last_part(bundle.path),
        verdict=PASSED,
        sentence=f"The exported graphs on ONNX Runtime's CPU provider against torch in float64, "
        f"{count_of(len(cases), 'case')} and the encoder in parts, thresholds of {thresholds_of}.",
        problems=(),
        scope=Scope(f"the graphs match torch in float64 with the weights of {weights}", not_proven),
        mixing=PRECISIONS[manifest.precision].mixing,
        figures=(*worst_of_cases(cases, bounds), *worst_of_parts(parity, bounds)),
        ties=f"{count_of(parity['ties'] + parity.get('sweep_ties', 0), 'frame')} of all cases.",
        facts=(*_facts(Hashes.of(manifest), machine), _record("Export", {**_codec(manifest), **provenance})),
        details=(case_table(cases, bounds), *_measured(manifest.encoder_context, manifest.look_ahead)),
        date=str(provenance["date"]),
    )


def _shared(result: VerifyResult | ConformanceResult) -> dict[str, Any]:
    mixing = PRECISIONS[result.precision].mixing
    return {
        "subject": last_part(result.bundle), "verdict": verdict(result), "mixing": mixing, "date": result.date,
    }  # fmt: skip


def _shown(result: CodecRun, problems: list[str]) -> tuple[str, ...]:
    return tuple(map(PathFilter([result.bundle, *paths_in_command(result.command)]), problems))


def _facts(hashes: Hashes, machine: Machine, reference: str | None = None) -> tuple[Table, ...]:
    named = {
        "bundle (its manifest, which holds all of these)": hashes.bundle,
        "checkpoint that was exported": hashes.checkpoint or "none: untrained weights, from a seed",
        **({"checkpoint of the reference": reference} if reference else {}),
        **({"weights, shared by the graphs": hashes.weights} if hashes.weights else {}),
        **{f"graph {name}": sha256 for name, sha256 in hashes.graphs.items()},
    }
    memory = "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / 2**30:.1f} GiB"
    computer = {
        "CPU": machine.cpu,
        "usable CPUs": machine.usable_cpus,
        "memory": memory,
        **{f"GPU {index}": gpu_line(gpu) for index, gpu in enumerate(machine.gpus)},
        "system": machine.os,
    }
    versions = {"Python": machine.python, **machine.versions}
    return (_record("SHA-256", named), _record("Versions", versions), _record("Machine", computer))


def _run_table(result: CodecRun, more: Mapping[str, str]) -> Table:
    return _record(
        "Run",
        {
            "model": result.model_id,
            "precision": result.precision,
            "backend": f"{result.backend} on {result.provider}",
            **{name.lower(): value for name, value in more.items()},
            "date": result.date,
            "command": without_paths_in_command(result.command),
        },
    )


def _codec(manifest: Any) -> dict[str, str]:
    return {"model": manifest.model_id, "precision": manifest.precision}


def _measured(context: Mapping[str, Any], look_ahead: Mapping[str, Any]) -> list[Table]:
    """Return what the export measured besides parity, which has no thresholds."""
    windows = tuple(
        (f"{case['context_s']:g} s", _share(case["code_agreement"]), _share(case["level0_agreement"]))
        for case in context.get("cases", ())
    )
    live = tuple(
        (
            f"{case['look_ahead_s']:g} s",
            _share(case["code_agreement"]),
            _share(case["level0_agreement"]),
            f"{case['stoi']:.4f}",
        )
        for case in look_ahead.get("cases", ())
    )
    tables = [
        Table("Windows, by their context", ("context", "codes equal", "level 0 equal"), windows),
        Table("Live encoding, by its look-ahead", ("look-ahead", "codes equal", "level 0 equal", "STOI"), live),
    ]
    return [table for table in tables if table.rows]


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"


def _record(title: str, values: Mapping[str, object]) -> Table:
    return Table(title, ("", ""), tuple((name, str(value)) for name, value in values.items()), 2)
