"""How well codecs keep speech: metrics with confidence intervals, and a page to listen. Start at `run_evaluation`."""

from .options import EvaluateOptions, Named
from .result import Evaluation, EvaluationResult
from .run import run_evaluation

__all__ = ["EvaluateOptions", "Evaluation", "EvaluationResult", "Named", "run_evaluation"]
