"""Results of `dmcodec doctor`: the findings, and the goals for a GPU. Field names are the JSON keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmcodec.benchmarks.bench.result import OPERATIONS
from dmcodec.benchmarks.codecs.registry import HYBRID, TENSORRT, runs_on_gpu
from dmcodec.benchmarks.codecs.torch import TORCH_COMPILE, TORCH_EAGER
from dmcodec.precision import FP16

from .options import STREAMS

FORMAT_VERSION = 1
OK, MISSING, PROBLEM = "ok", "missing", "problem"
GOAL_CLIP_S = 10.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """The state of one part of the installation.

    Attributes:
        name: the part.
        status: OK, MISSING or PROBLEM.
        found: version, or what is wrong.
        way_out: what to do, where the status isn't OK.
    """

    name: str
    status: str
    found: str
    way_out: str = ""


@dataclasses.dataclass(frozen=True)
class Examination:
    """All findings, and what a GPU report depends on."""

    findings: tuple[Finding, ...]
    has_gpu: bool
    has_torch: bool


@dataclasses.dataclass(frozen=True)
class Goal:
    """A value that encode and decode both must reach: a speedup over `peer`, or without one the xRT of batches.

    With `streams`: the p99 of a push of that many live streams in milliseconds, which must not be more.
    """

    name: str
    needed: float
    peer: str = ""
    streams: int = 0


GOALS = (
    Goal("fp16, 10 s clip: times faster than eager torch in float32", 5.0, TORCH_EAGER),
    Goal("fp16, 10 s clip: times faster than torch.compile in fp16", 2.0, TORCH_COMPILE),
    Goal("fp16, batches: throughput in xRT", 5000.0),
    Goal(f"fp16, {STREAMS} live streams: p99 of a push in ms, at most", 20.0, streams=STREAMS),
)


def check_goals(benches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare each goal with each benchmark (the JSON of `dmcodec bench`) of an fp16 bundle on a GPU.

    Returns:
        goal, needed, side, encode, decode and met; side and met are None where nothing was measured.
    """
    on_gpu = [
        bench for bench in benches if bench["bundle"]["precision"] == FP16.name and runs_on_gpu(str(bench["side"]))
    ]
    return [row for goal in GOALS for row in _goal_rows(goal, on_gpu)]


def check_choices(benches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare engines alone with engines whose LSTMs run in cuDNN, on a clip of GOAL_CLIP_S.

    Returns:
        For each precision that was measured with both: precision; encode and decode, how many times faster the hybrid
        is; and take, the name of the one that is faster over both.
    """
    rows = []
    for precision in dict.fromkeys(bench["bundle"]["precision"] for bench in benches):
        times = {
            bench["side"]: {name: _clip_s(bench, name) for name in OPERATIONS}
            for bench in benches
            if bench["bundle"]["precision"] == precision and bench["side"] in (TENSORRT, HYBRID)
        }
        if len(times) < 2 or None in (*times[TENSORRT].values(), *times[HYBRID].values()):
            continue
        ratios = {name: (times[TENSORRT][name] or 0.0) / (times[HYBRID][name] or 1.0) for name in OPERATIONS}
        totals = {side: sum(value or 0.0 for value in both.values()) for side, both in times.items()}
        rows.append({"precision": precision, **ratios, "take": min(totals, key=lambda side: totals[side])})
    return rows


def _clip_s(bench: Mapping[str, Any], operation: str) -> float | None:
    """Return the median time of a clip of GOAL_CLIP_S; None where it wasn't measured."""
    for entry in bench["measurements"]:
        key = (entry["side"], entry["operation"], entry["duration_s"], entry["batch"])
        if key == (bench["side"], operation, GOAL_CLIP_S, 1):
            return float(entry["timing"]["p50_s"])
    return None


def _goal_rows(goal: Goal, benches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for bench in benches:
        reached = _reached(goal, bench)
        if reached is None:
            continue
        values = [value for value in reached.values() if value is not None]
        met = max(values) <= goal.needed if goal.streams else min(values) >= goal.needed
        rows.append({"goal": goal.name, "needed": goal.needed, "side": bench["side"], **reached, "met": met})
    return rows or [
        {"goal": goal.name, "needed": goal.needed, "side": None, "encode": None, "decode": None, "met": None}
    ]


def _reached(goal: Goal, bench: Mapping[str, Any]) -> Mapping[str, float | None] | None:
    """Return what encode and decode reached; None where it wasn't measured."""
    if goal.streams:
        return _p99_ms(goal.streams, bench)
    return _speedup(goal.peer, bench) if goal.peer else _throughput(bench)


def _p99_ms(streams: int, bench: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Return the p99 of a push in milliseconds; None for an operation that the backend does not stream."""
    found: dict[str, float | None] = dict.fromkeys(OPERATIONS)
    for level in (bench.get("live") or {}).get("levels", []):
        if (level["side"], level["streams"]) == ("pooled", streams):
            found[level["operation"]] = 1000 * level["p99_s"]
    return found if any(value is not None for value in found.values()) else None


def _speedup(peer: str, bench: Mapping[str, Any]) -> dict[str, float] | None:
    for comparison in bench["comparisons"]:
        goal_shape = (comparison["duration_s"], comparison["batch"]) == (GOAL_CLIP_S, 1)
        if goal_shape and comparison["peer"].startswith(f"{peer}-cuda"):
            return {"encode": comparison["encode_speedup"], "decode": comparison["decode_speedup"]}
    return None


def _throughput(bench: Mapping[str, Any]) -> dict[str, float] | None:
    best = {name: max(_batch_xrt(bench, name), default=None) for name in OPERATIONS}
    return {name: value for name, value in best.items() if value is not None} if all(best.values()) else None


def _batch_xrt(bench: Mapping[str, Any], operation: str) -> Iterator[float]:
    for entry in bench["measurements"]:
        if entry["side"] == bench["side"] and entry["operation"] == operation and entry["batch"] > 1:
            yield entry["speed"]["xrt"]
