"""The result of a benchmark in one sentence: the worst ratio, and what the codec that gave it pays for its speed."""

from __future__ import annotations

from .options import Shape
from .result import OPERATIONS, BenchResult, Comparison, Fidelity


def headline(result: BenchResult) -> str:
    """Return one or two sentences; where the machine was busy, they begin with that."""
    words = _worst(result) if result.comparisons else _alone(result)
    warning = result.load.warning() if result.load else ""
    return f"{warning} {words}".strip()


def _worst(result: BenchResult) -> str:
    ratio, operation, worst = min(
        ((_speedup(entry, operation), operation, entry) for entry in result.comparisons for operation in OPERATIONS),
        key=lambda found: found[0],
    )
    own, shape = f"{result.side} ({result.bundle.precision})", Shape(worst.duration_s, worst.batch)
    where = f"at {operation} of {shape}"
    if ratio >= 1:
        words = f"{own} is at least {ratio:.2f} times as fast as each peer; the closest is {worst.peer}, {where}."
    else:
        words = f"{own} is slower than {worst.peer}: {ratio:.2f} times as fast {where}, the worst ratio of all."
    costs = [_cost(result, side) for side in (worst.peer, result.side)]
    return " ".join([words, *filter(None, costs)])


def _speedup(comparison: Comparison, operation: str) -> float:
    return comparison.encode_speedup if operation == "encode" else comparison.decode_speedup


def _cost(result: BenchResult, side: str) -> str:
    """Return what a codec pays for its speed; empty for the reference, and where it is not known."""
    found: Fidelity | None = next((entry for entry in result.fidelity if entry.side == side), None)
    if found is None:
        return ""
    latents = "" if found.latents_snr_db is None else f", latents {found.latents_snr_db:.0f} dB"
    return (
        f"{side} against float32: {found.code_agreement:.1%} of the codes equal "
        f"({found.level0_agreement:.1%} of level 0), audio {found.waveform_snr_db:.0f} dB{latents}."
    )


def _alone(result: BenchResult) -> str:
    """Return the speed at the reference clip."""
    reference = (result.reference_s, 1)
    speeds = {
        entry.operation: entry.speed.xrt
        for entry in result.measurements
        if (entry.duration_s, entry.batch) == reference and entry.side == result.side
    }
    words = " and ".join(f"{operation}s at {speeds[operation]:.1f} times real time" for operation in OPERATIONS)
    return f"{result.side} ({result.bundle.precision}) {words}, clips of {Shape(*reference)}."
