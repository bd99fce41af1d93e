"""`dmcodec verify`: does a backend say what the reference says? Start at `run_verify`."""

from .options import VerifyOptions
from .result import VerifyResult
from .run import run_verify

__all__ = ["VerifyOptions", "VerifyResult", "run_verify"]
