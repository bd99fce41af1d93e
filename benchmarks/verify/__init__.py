"""`dmcodec verify`: compare a backend with a reference. Start at `run_verify`."""

from .options import VerifyOptions
from .result import VerifyResult
from .run import run_verify

__all__ = ["VerifyOptions", "VerifyResult", "run_verify"]
