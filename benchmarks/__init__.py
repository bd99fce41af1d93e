"""Measures a bundle: speed, memory and fidelity, beside the same weights in torch. Start at `run_bench`."""

from dmcodec.benchmarks.bench.options import BenchOptions
from dmcodec.benchmarks.bench.result import BenchResult
from dmcodec.benchmarks.bench.run import run_bench

__all__ = ["BenchOptions", "BenchResult", "run_bench"]
