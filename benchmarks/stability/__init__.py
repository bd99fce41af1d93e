"""Token stability: how many codes of a codec stay when its input changes in ways that a listener hardly hears."""

from .changes import Change, changes
from .measure import Listener, measure_stability
from .result import Agreement, Round, Stability, StabilityOptions

__all__ = [
    "Agreement", "Change", "Listener", "Round", "Stability", "StabilityOptions", "changes", "measure_stability",
]  # fmt: skip
