"""`dmcodec verify`: does a backend say what the reference says? Start at `run_verify`."""

from dmcodec.benchmarks.verify.options import VerifyOptions
from dmcodec.benchmarks.verify.result import VerifyResult
from dmcodec.benchmarks.verify.run import run_verify

__all__ = ["VerifyOptions", "VerifyResult", "run_verify"]
