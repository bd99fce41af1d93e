"""Measures a bundle: speed, memory and fidelity, beside the same weights in torch. Start at `run_bench`."""

from dmcodec.benchmarks.bench import run_bench
from dmcodec.benchmarks.options import BenchOptions
from dmcodec.benchmarks.results import BenchResult

__all__ = ["BenchOptions", "BenchResult", "run_bench"]
