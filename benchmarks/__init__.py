"""Measurements of codecs, one folder for each verb: bench, verify, evaluate, doctor. `codecs` has what they measure."""

from dmcodec.benchmarks.bench import BenchOptions, BenchResult, run_bench

__all__ = ["BenchOptions", "BenchResult", "run_bench"]
