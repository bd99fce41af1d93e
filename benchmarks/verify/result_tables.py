"""The result of `dmcodec verify` as tables."""

from __future__ import annotations

from dmcodec.benchmarks.tables import Table
from dmcodec.export.parity import shortfall

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


def summary_line(result: VerifyResult) -> str:
    """Return one line that names the bundle, the backend and the reference."""
    return (
        f"{result.bundle}: model {result.model_id}, {result.precision}; {result.backend} on {result.provider} "
        f"against {result.reference}"
    )


def verify_tables(result: VerifyResult) -> list[Table]:
    """Return the table of the graphs and the table of the uses."""
    cases = [
        (
            f"{case.signal}, {case.num_samples} samples, batch {case.batch}",
            *(_cell(name, getattr(case, name)) for name in _CASE_COLUMNS.values()),
            "FAILED" if shortfall(case, result.thresholds_of) else "ok",
        )
        for case in result.cases
    ]
    checks = [
        (
            check.what,
            check.detail,
            *(_cell(name, getattr(check, name)) for name in _CHECK_COLUMNS.values()),
            "FAILED" if check.problem else "ok",
        )
        for check in result.checks
    ]
    note = "A tie counts as equal: two codebook entries at the same distance within float32 rounding."
    return [
        Table("Graphs, with the cases of the export", ("input", *_CASE_COLUMNS, "result"), tuple(cases), note=note),
        Table("Uses of the codec", ("use", "input", *_CHECK_COLUMNS, "result"), tuple(checks), labels=2),
    ]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("_agreement"):
        return f"{100 * value:.2f} %"
    if name.endswith("_error"):
        return f"{value:.1e}"
    return f"{value:.1f}" if name.endswith("_db") else str(value)
