"""Confidence intervals over files (seeded percentile bootstrap, jackknife), and the codebook use of an evaluation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dmcodec.codebook_use import entropy_bits, perplexity, unused_entries
from dmcodec.codes import Codes

LEVEL = 0.95
RESAMPLES = 10_000
# Fewer files have no interval in tables and on pages: those of the bootstrap are too narrow then.
ENOUGH_FILES = 10
_BLOCK = 500
_KEPT_FILES = 4000  # resamples of more take too much memory: 20 kB a file

# Maps sums of contributions [..., k] to the statistic [...].
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A statistic over files, with its 95 % confidence interval.

    Attributes:
        value: None where no file has a value.
        low, high: the interval; None where fewer than two files have a value.
        files: number of files with a value.
        failed: number of files without a value.
    """

    value: float | None
    low: float | None
    high: float | None
    files: int
    failed: int = 0


def describe(seed: int) -> str:
    """Return the method of the intervals of metrics, in one line."""
    return f"95 % confidence interval over files: percentile bootstrap, {RESAMPLES:,} resamples, seed {seed}"


def mean_estimate(values: Sequence[float], failed: int, seed: int) -> Estimate:
    """Return the mean over files, each with the same weight, and its bootstrap interval."""
    contributions = np.array([(value, 1.0) for value in values], np.float64).reshape(-1, 2)
    return bootstrap(contributions, lambda sums: sums[..., 0] / sums[..., 1], failed, seed)


def bootstrap(contributions: NDArray[np.float64], statistic: Statistic, failed: int, seed: int) -> Estimate:
    """Return the statistic of the summed contributions (files, k), and its percentile interval.

    The files are resampled with replacement (Efron, 1979). Equal numbers of files give the same resamples, so that
    columns over the same files are comparable.
    """
    files = len(contributions)
    if files == 0:
        return Estimate(None, None, None, 0, failed)
    value = float(statistic(contributions.sum(axis=0)))
    if files == 1:
        return Estimate(value, None, None, 1, failed)
    draws = _kept_draws(files, seed) if files <= _KEPT_FILES else _draws(files, seed)
    resampled = [statistic(times_drawn.astype(np.float64) @ contributions) for times_drawn in draws]
    low, high = np.quantile(np.concatenate(resampled), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(value, float(low), float(high), files, failed)


def _draws(files: int, seed: int) -> Iterator[NDArray[np.uint16]]:
    """Yield how often each resample draws each file, in blocks (resamples, files)."""
    random = np.random.default_rng(seed)
    for start in range(0, RESAMPLES, _BLOCK):
        times_drawn = random.multinomial(files, np.full(files, 1 / files), size=min(_BLOCK, RESAMPLES - start))
        yield times_drawn.astype(np.uint16)


@functools.lru_cache(maxsize=2)
def _kept_draws(files: int, seed: int) -> tuple[NDArray[np.uint16], ...]:
    """Return `_draws`, the same for every metric and column; drawing is what takes the time."""
    return tuple(_draws(files, seed))


def jackknife(value: float, without_each: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the interval value +- t * standard error of the jackknife (Tukey, 1958); None for fewer than two files.

    For statistics that the bootstrap biases, such as those that count distinct codes: its resamples leave files out.

    Args:
        value: the statistic of all files.
        without_each: the statistic of all files but one, for each file: (files,).
    """
    files = len(without_each)
    if files < 2:
        return None
    from scipy.special import stdtrit

    variance = (files - 1) / files * np.square(without_each - without_each.mean()).sum()
    half_width = float(stdtrit(files - 1, (1 + LEVEL) / 2)) * float(np.sqrt(variance))
    return value - half_width, value + half_width


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
