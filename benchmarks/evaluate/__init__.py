"""`dmcodec evaluate`: quality of reconstructed speech, with intervals and a listening page. See `run_evaluation`."""

from .options import EvaluateOptions, Named
from .result import Evaluation, EvaluationResult
from .run import run_evaluation

__all__ = ["EvaluateOptions", "Evaluation", "EvaluationResult", "Named", "run_evaluation"]
