"""What was aimed for on a GPU, and whether the benches of a report reach it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dmcodec.precision import FP16

CLIP_S = 10.0


@dataclasses.dataclass(frozen=True)
class Goal:
    """A figure that both encode and decode have to reach. `peer` empty: throughput of batches, in xRT."""

    name: str
    needed: float
    peer: str = ""


GOALS = (
    Goal("fp16, 10 s clip: times faster than eager torch in float32", 5.0, "torch-eager"),
    Goal("fp16, 10 s clip: times faster than torch.compile in fp16", 2.0, "torch-compile"),
    Goal("fp16, batches: throughput in xRT", 5000.0),
)


def judge(benches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each goal for each bench (the JSON of `dmcodec bench`) of an fp16 bundle on a GPU.

    Returns:
        name, needed, side, encode, decode and met; where nothing was measured, side is None and so is met.
    """
    half = [
        bench for bench in benches if bench["bundle"]["precision"] == FP16.name and bench["side"] != "onnxruntime-cpu"
    ]
    return [row for goal in GOALS for row in _rows(goal, half)]


def _rows(goal: Goal, benches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [
        {"goal": goal.name, "needed": goal.needed, "side": bench["side"], **figures, "met": _met(goal, figures)}
        for bench in benches
        if (figures := (_speedup(goal.peer, bench) if goal.peer else _throughput(bench))) is not None
    ]
    return rows or [
        {"goal": goal.name, "needed": goal.needed, "side": None, "encode": None, "decode": None, "met": None}
    ]


def _met(goal: Goal, figures: Mapping[str, float]) -> bool:
    return min(figures.values()) >= goal.needed


def _speedup(peer: str, bench: Mapping[str, Any]) -> dict[str, float] | None:
    for comparison in bench["comparisons"]:
        at_goal = (comparison["duration_s"], comparison["batch"]) == (CLIP_S, 1)
        if at_goal and comparison["peer"].startswith(f"{peer}-cuda"):
            return {"encode": comparison["encode_speedup"], "decode": comparison["decode_speedup"]}
    return None


def _throughput(bench: Mapping[str, Any]) -> dict[str, float] | None:
    best = {name: max(_xrt(bench, name), default=None) for name in ("encode", "decode")}
    return {name: value for name, value in best.items() if value is not None} if all(best.values()) else None


def _xrt(bench: Mapping[str, Any], operation: str) -> Iterator[float]:
    for entry in bench["measurements"]:
        if entry["side"] == bench["side"] and entry["operation"] == operation and entry["batch"] > 1:
            yield entry["speed"]["xrt"]
