"""Peak memory of each side and operation, each in a fresh process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmcodec.benchmarks.options import TORCH_EAGER, BenchOptions
from dmcodec.benchmarks.results import OPERATIONS, MemoryResult
from dmcodec.benchmarks.timing import Progress


def measure_memory(
    bundle: str | Path, options: BenchOptions, sides: Sequence[str], threads: int, progress: Progress
) -> tuple[MemoryResult, ...]:
    """Peak resident memory of `sides` of a bundle, for the reference clip.

    Each process loads only what its operation needs (torch: the whole model) and runs it three times.
    """
    common = {
        "bundle": str(bundle),
        "backend": options.backend,
        "provider": options.provider,
        "threads": threads,
        "duration_s": options.reference_s,
        "checkpoint": str(options.checkpoint) if options.checkpoint else None,
        "config": str(options.config) if options.config else None,
    }
    cases = [(side, operation) for side in sides for operation in OPERATIONS]
    results = []
    for done, (side, operation) in enumerate(cases):
        progress("memory", done, len(cases))
        request = {**common, "torch": side == TORCH_EAGER, "operation": operation}
        results.append(MemoryResult(side, operation, *_measure(request)))
    progress("memory", len(cases), len(cases))
    return tuple(results)


def _measure(request: dict[str, Any]) -> tuple[int | None, str | None]:
    """Peak memory in bytes, or None and the reason why there is none."""
    command = [sys.executable, "-P", "-m", "dmcodec.benchmarks.memory_process", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return None, f"the measuring process failed: {last_line}"
    peak_rss_bytes = json.loads(done.stdout)["peak_rss_bytes"]
    return peak_rss_bytes, None if peak_rss_bytes else "this system doesn't tell a process its peak memory"
