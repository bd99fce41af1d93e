"""Codebook use of one quantizer level: entropy, perplexity and unused entries, from the counts of its codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def entropy_bits(counts: NDArray[Any]) -> float:
    """Return the entropy in bits of the distribution that the counts [codebook_size] make; 0 for no counts."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # never -0


def perplexity(counts: NDArray[Any]) -> float:
    """Return 2^entropy of the counts [codebook_size]: all entries if they are used equally often, else less."""
    return float(2 ** entropy_bits(counts))


def unused_entries(counts: NDArray[Any]) -> int:
    """Return how many of the counts [codebook_size] are 0."""
    return int((counts == 0).sum())
