"""The result of `dmcodec verify` as tables."""

from __future__ import annotations

from collections.abc import Sequence

from dmcodec.benchmarks.tables import Table, count_of
from dmcodec.export.parity import ParityCase, reaches_all
from dmcodec.precision import PRECISIONS, Thresholds

from .conformance import ConformanceResult
from .figures import IDENTICAL, TIE, measure
from .result import VerifyResult

_CASE_COLUMNS = {
    "latents SNR dB": "latents_snr_db",
    "equal frames": "frame_agreement",
    "level 0": "level0_agreement",
    "ties": "ties",
    "decoder SNR dB": "decoder_snr_db",
    "stream SNR dB": "stream_snr_db",
    "chain SNR dB": "chain_snr_db",
}
_CHECK_COLUMNS = {
    "equal codes": "code_agreement",
    "level 0": "level0_agreement",
    "equal frames": "frame_agreement",
    "ties": "ties",
    "SNR dB": "snr_db",
    "max |error|": "max_abs_error",
}


def verify_tables(result: VerifyResult) -> list[Table]:
    """Return the table of the graphs and the table of the uses."""
    checks = [
        (
            check.what,
            check.detail,
            *(_cell(name, getattr(check, name)) for name in _CHECK_COLUMNS.values()),
            "FAILED" if check.problem else "ok",
        )
        for check in result.checks
    ]
    thresholds = PRECISIONS[result.thresholds_of].thresholds
    return [
        case_table(result.cases, thresholds),
        Table("Uses of the codec", ("use", "input", *_CHECK_COLUMNS, "result"), tuple(checks), 2, IDENTICAL),
    ]


def case_table(cases: Sequence[ParityCase], thresholds: Thresholds) -> Table:
    """Return the table of the graphs' cases."""
    rows = [
        (
            f"{case.signal}, {count_of(case.num_samples, 'sample')}, batch {case.batch}",
            *(_cell(name, getattr(case, name)) for name in _CASE_COLUMNS.values()),
            "ok" if reaches_all(case, thresholds) else "FAILED",
        )
        for case in cases
    ]
    columns = ("input", *_CASE_COLUMNS, "result")
    return Table("Graphs, with the cases of the export", columns, tuple(rows), note=TIE)


def conformance_table(result: ConformanceResult) -> Table:
    """Return the table of the cases."""
    rows = [
        (
            outcome.case,
            str(outcome.runs),
            str(outcome.frames),
            *(_cell(name, getattr(outcome, name)) for name in ("ties", "snr_db", "max_abs_error")),
            "FAILED" if outcome.problem else f"skipped: {outcome.skipped}" if outcome.skipped else "ok",
        )
        for outcome in result.outcomes
    ]
    return Table("Conformance", ("case", "runs", "frames", "ties", "SNR dB", "max |error|", "result"), tuple(rows))


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("_agreement"):
        return measure(value, in_db=False)
    if name.endswith("_error"):
        return f"{value:.1e}"
    return f"{value:.1f}" if name.endswith("_db") else str(value)
