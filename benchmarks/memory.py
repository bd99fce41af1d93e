"""Peak memory of each side and operation, and the GPU's power, each in a fresh process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmcodec.benchmarks.options import BUNDLE_PEERS, TORCH_EAGER, BenchOptions, runs_on_gpu
from dmcodec.benchmarks.results import OPERATIONS, MemoryResult
from dmcodec.benchmarks.timing import Progress


def measure_memory(
    bundle: str | Path, options: BenchOptions, sides: Sequence[str], threads: int, progress: Progress
) -> tuple[MemoryResult, ...]:
    """Peak memory of `sides` of a bundle, for the reference clip; of those on a GPU its memory and power, too.

    Each process loads only what its operation needs (torch: the whole model) and runs it three times; on a GPU then for
    two seconds more, in which its power is read.
    """
    common = {
        "bundle": str(bundle),
        "threads": threads,
        "duration_s": options.reference_s,
        "checkpoint": str(options.checkpoint) if options.checkpoint else None,
        "config": str(options.config) if options.config else None,
    }
    cases = [(side, operation) for side in sides for operation in OPERATIONS]
    results = []
    for done, (side, operation) in enumerate(cases):
        progress("memory", done, len(cases))
        results.append(MemoryResult(side, operation, **_measure({**common, **_kind(side, options)}, operation)))
    progress("memory", len(cases), len(cases))
    return tuple(results)


def _kind(side: str, options: BenchOptions) -> dict[str, Any]:
    """What the process has to know of a side."""
    if side.startswith(TORCH_EAGER):
        return {"torch": True, "gpu": options.on_gpu}
    backend, provider = BUNDLE_PEERS[side] if side in options.peers else (options.backend, options.provider)
    return {"torch": False, "backend": backend, "provider": provider, "gpu": runs_on_gpu(side)}


def _measure(request: dict[str, Any], operation: str) -> dict[str, Any]:
    """The figures of a MemoryResult, or the reason why there are none."""
    command = [sys.executable, "-P", "-m", "dmcodec.benchmarks.memory_process"]
    request = {**request, "operation": operation}
    done = subprocess.run([*command, json.dumps(request)], capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return {"peak_rss_bytes": None, "reason": f"the measuring process failed: {last_line}"}
    figures: dict[str, Any] = json.loads(done.stdout)
    known = figures["peak_rss_bytes"] is not None
    return {**figures, "reason": None if known else "this system doesn't tell a process its peak memory"}
