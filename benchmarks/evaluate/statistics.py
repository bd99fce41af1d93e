"""Confidence intervals over files (seeded percentile bootstrap, jackknife), and the codebook use of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dmcodec.codebook_use import entropy_bits, perplexity, unused_entries
from dmcodec.codes import Codes

LEVEL = 0.95
RESAMPLES = 10_000
_BLOCK = 500

# From sums of contributions [..., k] to the figure [...].
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure over `files` files with its 95 % interval; `failed` more files have no value.

    `value` is None where no file has one; `low` and `high` are None where fewer than two files have one.
    """

    value: float | None
    low: float | None
    high: float | None
    files: int
    failed: int = 0


def describe(seed: int) -> str:
    """How the intervals of metrics are made, in one line."""
    return f"95 % confidence interval over files: percentile bootstrap, {RESAMPLES:,} resamples, seed {seed}"


def mean_estimate(values: Sequence[float], failed: int, seed: int) -> Estimate:
    """Mean over files, each weighing the same."""
    contributions = np.array([(value, 1.0) for value in values], np.float64).reshape(-1, 2)
    return bootstrap(contributions, lambda sums: sums[..., 0] / sums[..., 1], failed, seed)


def bootstrap(contributions: NDArray[np.float64], statistic: Statistic, failed: int, seed: int) -> Estimate:
    """The statistic of the summed contributions (files, k), and its percentile interval under resampling of files.

    Equal numbers of files are resampled alike, so that columns over the same files are held against each other fairly.
    """
    files = len(contributions)
    if files == 0:
        return Estimate(None, None, None, 0, failed)
    value = float(statistic(contributions.sum(axis=0)))
    if files == 1:
        return Estimate(value, None, None, 1, failed)
    random = np.random.default_rng(seed)
    found = []
    for start in range(0, RESAMPLES, _BLOCK):
        times_drawn = random.multinomial(files, np.full(files, 1 / files), size=min(_BLOCK, RESAMPLES - start))
        found.append(statistic(times_drawn @ contributions))
    low, high = np.quantile(np.concatenate(found), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value, float(low), float(high), files, failed)


def jackknife(value: float, without_each: NDArray[np.float64]) -> tuple[float, float] | None:
    """Interval value +- t * standard error from the figures without each file (files,); None for fewer than two.

    For figures that resampling would bias, as it leaves files out: what counts distinct codes, say.
    """
    files = len(without_each)
    if files < 2:
        return None
    from scipy.special import stdtrit

    variance = (files - 1) / files * np.square(without_each - without_each.mean()).sum()
    reach = float(stdtrit(files - 1, (1 + LEVEL) / 2)) * float(np.sqrt(variance))
    return value - reach, value + reach


@dataclasses.dataclass(frozen=True)
class LevelUse:
    """Use of one quantizer level's codebook.

    Attributes:
        level: index of the level, from 0.
        entries: size of the codebook.
        perplexity: 2^entropy of the codes.
        low, high: 95 % interval of the perplexity (jackknife over files, on the entropy); None for a single file.
        used: entries that at least one frame of any file used.
        dead: entries that no frame used.
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
    """Use of all levels, over `frames` frames of `files` files."""

    files: int
    frames: int
    levels: tuple[LevelUse, ...]


def codebook_use(codes: Sequence[Codes], codebook_size: int) -> CodebookUse | None:
    """Count the codes [n_q, frames] of all files; return None for no files."""
    if not codes:
        return None
    levels = tuple(
        _level_use(level, [clip[level] for clip in codes], codebook_size) for level in range(codes[0].shape[0])
    )
    return CodebookUse(len(codes), sum(clip.shape[1] for clip in codes), levels)


def _level_use(level: int, clips: Sequence[Codes], entries: int) -> LevelUse:
    clip_counts = [np.bincount(clip, minlength=entries) for clip in clips]
    total = sum(clip_counts, np.zeros(entries, np.int64))
    interval = jackknife(entropy_bits(total), np.array([entropy_bits(total - counts) for counts in clip_counts]))
    low, high = (None, None) if interval is None else (2 ** max(0.0, interval[0]), min(entries, 2 ** interval[1]))
    dead = unused_entries(total)
    return LevelUse(level, entries, perplexity(total), low, high, entries - dead, dead)
