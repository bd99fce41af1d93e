"""`dmcodec bench`: speed, memory and agreement of a bundle, compared with its peers. Start at `run_bench`."""

from .options import BenchOptions
from .result import BenchResult
from .run import run_bench

__all__ = ["BenchOptions", "BenchResult", "run_bench"]
