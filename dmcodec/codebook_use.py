"""How well a codec uses its codebooks: perplexity and dead entries of each level, over all files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.evaluate.statistics import jackknife

from .codes import Codes


@dataclasses.dataclass(frozen=True)
class LevelUse:
    """One level. `perplexity` is 2^entropy of the codes: at most `entries`, where all are used equally often.

    `low` and `high` are its 95 % interval (jackknife over files, on the entropy), None for fewer than two files.
    `dead` entries were used by no frame of any file.
    """

    level: int
    entries: int
    perplexity: float
    low: float | None
    high: float | None
    used: int
    dead: int


@dataclasses.dataclass(frozen=True)
class CodebookUse:
    """All levels, over `frames` frames of `files` files."""

    files: int
    frames: int
    levels: tuple[LevelUse, ...]


def codebook_use(codes: Sequence[Codes], codebook_size: int) -> CodebookUse | None:
    """Counts the codes [n_q, frames] of at least one file; None for none."""
    if not codes:
        return None
    levels = tuple(
        _level_use(level, [clip[level] for clip in codes], codebook_size) for level in range(codes[0].shape[0])
    )
    return CodebookUse(len(codes), sum(clip.shape[1] for clip in codes), levels)


def entropy_bits(counts: NDArray[np.int64]) -> float:
    """Entropy of the distribution that the counts make, in bits; 0 for no counts."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def _level_use(level: int, clips: Sequence[NDArray[np.uint16]], entries: int) -> LevelUse:
    total = sum((np.bincount(clip, minlength=entries) for clip in clips), np.zeros(entries, np.int64))
    entropy = entropy_bits(total)
    without_each = np.array([entropy_bits(total - np.bincount(clip, minlength=entries)) for clip in clips])
    interval = jackknife(entropy, without_each)
    low, high = (None, None) if interval is None else (2 ** max(0.0, interval[0]), min(entries, 2 ** interval[1]))
    used = int((total > 0).sum())
    return LevelUse(level, entries, 2**entropy, low, high, used, entries - used)
