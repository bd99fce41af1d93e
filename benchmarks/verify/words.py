"""What a verification says in words: a verdict, the worst figure, what was proven and what was not."""

from __future__ import annotations

import dataclasses

from dmcodec.benchmarks.tables import count_of
from dmcodec.precision import PRECISIONS

from .conformance import ConformanceResult
from .figures import Figure, measure, nearest, worst_of_cases, worst_of_checks
from .result import BUNDLE, GRAPHS, VerifyResult

PASSED, FAILED = "passed", "FAILED"
_NOT_QUALITY = "that the speech sounds good: `dmcodec evaluate` measures that"
_OTHER_MACHINES = "anything about other machines, backends or versions"


@dataclasses.dataclass(frozen=True)
class Scope:
    """What a result proves, and what it does not: parts of sentences."""

    proven: str
    not_proven: tuple[str, ...]


def figures_of(result: VerifyResult) -> list[Figure]:
    """Return the worst figure of each kind: graphs first, then uses."""
    return [*worst_of_cases(result.cases, PRECISIONS[result.thresholds_of].thresholds), *worst_of_checks(result.checks)]


def scope(result: VerifyResult) -> Scope:
    """Return what a verification proves where it passes."""
    where = f"{result.backend} on {result.provider}"
    uses = "streams, batches, long clips and fewer levels"
    if result.reference_weights == GRAPHS:
        same = result.reference == where
        proven = f"on this machine, {uses} give what the graphs give for each clip alone"
        if not same:
            proven = f"{where} computes what {result.reference} computes on this machine, graph by graph and in {uses}"
        origin = "that the graphs match the checkpoint: the export proved it, --checkpoint FILE proves it again"
        return Scope(proven, (origin, _NOT_QUALITY))
    proven = f"on this machine, the graphs on {where}, and {uses}, match torch in float64"
    if result.reference_weights == BUNDLE:
        own = "that these weights are the checkpoint's: torch took them from the bundle (--checkpoint FILE)"
        return Scope(proven, (own, _NOT_QUALITY))
    return Scope(f"{proven} with the weights of the {result.reference_weights}", (_OTHER_MACHINES, _NOT_QUALITY))


def conformance_scope(result: ConformanceResult) -> Scope:
    """Return what the conformance suite proves where it passes."""
    proven = "on this machine, the clips of the suite give the same tokens however they are run"
    if result.against == "expected values":
        return Scope(f"{proven}, and those that other machines give", (_NOT_QUALITY,))
    others = "that other machines give the same tokens: expected values exist for the built-in codec only"
    return Scope(proven, (others, "that the graphs match the checkpoint: --against torch", _NOT_QUALITY))


def summary_lines(result: VerifyResult) -> list[str]:
    """Return five lines: verdict, worst figure, codes, and what is proven and not, or else what failed."""
    figures = figures_of(result)
    return [
        _verdict_line(result),
        _worst_line(figures),
        _codes_line(result, figures),
        *_last_lines(result, scope(result)),
    ]


def conformance_lines(result: ConformanceResult) -> list[str]:
    """Return five lines: cases, worst figures, what is proven and not, or else what failed, and last the verdict."""
    ran = [outcome for outcome in result.outcomes if not outcome.skipped]
    ties = sum(outcome.ties or 0 for outcome in ran)
    audio = [outcome for outcome in ran if outcome.max_abs_error is not None]
    worst = max(audio, key=lambda outcome: outcome.max_abs_error or 0.0, default=None)
    heard = f"; audio differs by up to {worst.max_abs_error:.1e} ({worst.case})" if worst else ""
    return [
        f"{result.bundle} (model {result.model_id}, {result.precision}), {result.backend} on {result.provider} "
        f"against {result.against}: {count_of(len(ran), 'case')}, {sum(outcome.runs for outcome in ran):,} runs",
        f"worst: {_tie_words(ties)}{heard}",
        *_last_lines(result, conformance_scope(result)),
        f"{verdict(result)}: {result.verdict}",
    ]


def verdict(result: VerifyResult | ConformanceResult) -> str:
    """Return one word."""
    return PASSED if result.passed else FAILED


def count_ties(result: VerifyResult) -> int:
    """Return the number of frames, of all cases and checks, that differ by a tie only."""
    return sum(case.ties for case in result.cases) + sum(check.ties or 0 for check in result.checks)


def _verdict_line(result: VerifyResult) -> str:
    reference = f"{result.reference} with the weights of the {result.reference_weights}"
    if result.reference_weights == GRAPHS:
        reference = result.reference
    return (
        f"{verdict(result)}: {result.bundle} (model {result.model_id}, {result.precision}), "
        f"{result.backend} on {result.provider} against {reference}"
    )


def _worst_line(figures: list[Figure]) -> str:
    figure = nearest(figures)
    if figure is None:
        return "worst: no figure is near its threshold; no sample of the audio differs by more than 1e-6"
    return f"worst: {figure.kind}: {figure.text}, needs {figure.needs}; {figure.case}"


def _codes_line(result: VerifyResult, figures: list[Figure]) -> str:
    frames, level0 = _lowest(figures, "frames with all codes equal"), _lowest(figures, "codes of level 0")
    mixing = ""
    if PRECISIONS[result.precision].mixing is not None:
        mixing = f"; never mix tokens of {result.precision} with those of another precision"
    return f"codes: at worst {frames} of the frames equal, level 0 {level0}; {_tie_words(count_ties(result))}{mixing}"


def _tie_words(count: int) -> str:
    return f"{count_of(count, 'frame')} {'differs' if count == 1 else 'differ'} by a tie only"


def _lowest(figures: list[Figure], kind: str) -> str:
    shares = [figure.value for figure in figures if kind in figure.kind]
    return measure(min(shares), in_db=False) if shares else "-"


def _last_lines(result: VerifyResult | ConformanceResult, found: Scope) -> list[str]:
    if result.passed:
        return [f"proves: {found.proven}", f"does not prove: {'; '.join(found.not_proven)}"]
    problems = result.problems
    return [
        f"failed: {count_of(len(problems), 'figure')}; first {problems[0]}",
        "next: --details shows every figure, --report FILE.html writes a page of them",
    ]
