"""The record of a benchmark as tables: machine, bundle, provenance, and parity at export beside its thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dmcodec.benchmarks.gpu import MIB
from dmcodec.benchmarks.tables import Table

from .result import BenchResult
from .result_tables import gpu_line

# Figure of a parity record -> the threshold that applies to it, where that has another name.
_THRESHOLDS = {
    "stream_snr_db": "decoder_snr_db",
    "sweep_latents_snr_db": "latents_snr_db",
    "sweep_frame_agreement": "frame_agreement",
    "sweep_level0_agreement": "level0_agreement",
}
_TITLE = "Parity with torch at export, worst case"


def record_tables(result: BenchResult) -> list[Table]:
    """Return machine, bundle, provenance and parity as tables of name and value."""
    bundle, machine = result.bundle, result.machine
    memory = "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / 2**30:.1f} GiB"
    return [
        _record_table(
            "Machine",
            {
                "CPU": machine.cpu,
                "usable CPUs": machine.usable_cpus,
                "threads of every codec": result.threads,
                "memory": memory,
                "load": result.load.line() if result.load else "unknown",
                **{f"GPU {index}": gpu_line(gpu) for index, gpu in enumerate(machine.gpus)},
                "system": machine.os,
                "Python": machine.python,
                **machine.versions,
                "date": result.date,
                "command": result.command,
            },
        ),
        _record_table(
            "Bundle",
            {
                "path": bundle.path,
                "model": bundle.model_id,
                "precision": bundle.precision,
                "graphs": f"{bundle.size_bytes / MIB:,.1f} MiB",
                "backend": f"{bundle.backend} on {bundle.provider}",
            },
        ),
        _record_table("Provenance of the bundle", bundle.provenance),
        parity_table(bundle.parity),
    ]


def parity_table(parity: Mapping[str, Any]) -> Table:
    """Return the worst figures of the export, each with its threshold and whether it passed.

    Figures without a threshold are not judged. After a tie the audio differs, so the chain has no threshold then.
    """
    thresholds: Mapping[str, Any] = parity.get("thresholds") or {}
    rows = []
    for name, value in parity.items():
        if value is None or isinstance(value, (str, Mapping)):
            continue
        threshold = thresholds.get(_THRESHOLDS.get(name, name))
        if name == "chain_snr_db" and parity.get("ties"):
            threshold = None
        verdict = "" if threshold is None else "pass" if value >= threshold else "FAIL"
        rows.append((name, _text(value), "-" if threshold is None else f"at least {_text(threshold)}", verdict))
    rows.sort(key=lambda row: not row[3])
    return Table(_TITLE, ("figure", "value", "threshold", "verdict"), tuple(rows))


def _record_table(title: str, values: Mapping[str, Any]) -> Table:
    """Return a table of name and value, without empty and nested values."""
    shown = {
        name: value for name, value in values.items() if value not in (None, "") and not isinstance(value, Mapping)
    }
    return Table(title, ("", ""), tuple((name, _text(value)) for name, value in shown.items()), labels=2)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
