"""The precisions of a bundle."""

from __future__ import annotations

PRECISIONS = ("fp32", "fp16", "fp16-weights")
