"""Results of `dmcodec doctor`: the findings, and the goals for a GPU. Field names are the JSON keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmcodec.benchmarks.bench.result import OPERATIONS
from dmcodec.benchmarks.codecs.registry import runs_on_gpu
from dmcodec.benchmarks.codecs.torch import TORCH_COMPILE, TORCH_EAGER
from dmcodec.precision import FP16

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
    """A value that encode and decode both must reach: a speedup over `peer`, or without one the xRT of batches."""

    name: str
    needed: float
    peer: str = ""


GOALS = (
    Goal("fp16, 10 s clip: times faster than eager torch in float32", 5.0, TORCH_EAGER),
    Goal("fp16, 10 s clip: times faster than torch.compile in fp16", 2.0, TORCH_COMPILE),
    Goal("fp16, batches: throughput in xRT", 5000.0),
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


def _goal_rows(goal: Goal, benches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [
        {
            "goal": goal.name,
            "needed": goal.needed,
            "side": bench["side"],
            **reached,
            "met": min(reached.values()) >= goal.needed,
        }
        for bench in benches
        if (reached := (_speedup(goal.peer, bench) if goal.peer else _throughput(bench))) is not None
    ]
    return rows or [
        {"goal": goal.name, "needed": goal.needed, "side": None, "encode": None, "decode": None, "met": None}
    ]


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
