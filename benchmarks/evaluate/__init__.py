"""`dmcodec evaluate`: quality of reconstructed speech, with intervals and a listening page. See `run_evaluation`."""

from dmcodec.benchmarks.codecs.named import Named

from .options import EvaluateOptions
from .result import Evaluation, EvaluationResult
from .run import run_evaluation

__all__ = ["EvaluateOptions", "Evaluation", "EvaluationResult", "Named", "run_evaluation"]
