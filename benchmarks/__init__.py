"""Measurements of codecs, one folder for each verb: bench, verify, evaluate, doctor. `codecs` has what they measure."""

from dmcodec.benchmarks.bench.options import BenchOptions
from dmcodec.benchmarks.bench.result import BenchResult
from dmcodec.benchmarks.bench.run import run_bench

__all__ = ["BenchOptions", "BenchResult", "run_bench"]
