"""How well codecs keep speech: metrics with confidence intervals, and a page to listen. Start at `evaluate`."""

from dmcodec.benchmarks.evaluation.evaluate import evaluate
from dmcodec.benchmarks.evaluation.options import EvaluateOptions, Named
from dmcodec.benchmarks.evaluation.results import Evaluation, EvaluationResult

__all__ = ["EvaluateOptions", "Evaluation", "EvaluationResult", "Named", "evaluate"]
