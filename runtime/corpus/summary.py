"""What an output holds, summed up from the reports of its shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.codebook_use import entropy_bits, perplexity, unused_entries

from .plan import Plan, read_plan
from .reports import Failure, ShardReport, read_report


@dataclass(frozen=True)
class Summary:
    """What an output holds.

    Attributes:
        plan: of the output.
        shards_done: number of complete shards.
        clips: with tokens.
        num_samples: of these clips, at the codec's rate.
        frames: of these clips.
        size_bytes: of the shards' files.
        code_counts: (n_q, codebook_size) int64: how often each entry is used.
        failures: clips without tokens, in the order of the corpus.
    """

    plan: Plan
    shards_done: int
    clips: int
    num_samples: int
    frames: int
    size_bytes: int
    code_counts: NDArray[np.int64]
    failures: tuple[Failure, ...]

    @property
    def audio_s(self) -> float:
        """Length of the clips with tokens, in seconds."""
        return self.num_samples / self.plan.settings.sample_rate

    @property
    def complete(self) -> bool:
        """Whether all shards are done."""
        return self.shards_done == len(self.plan.shards)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        settings = self.plan.settings
        return {
            "out": str(self.plan.folder),
            "format": settings.format,
            "model_id": settings.model_id,
            "precision": settings.precision,
            "shards": len(self.plan.shards),
            "shards_done": self.shards_done,
            "clips": self.clips,
            "failures": len(self.failures),
            "audio_s": self.audio_s,
            "hours": self.audio_s / 3600,
            "frames": self.frames,
            "n_q": settings.n_q,
            "codebook_size": settings.codebook_size,
            "size_bytes": self.size_bytes,
            "columns": list(self.plan.columns),
            "levels": [
                {
                    "level": level,
                    "entropy_bits": entropy_bits(counts),
                    "perplexity": perplexity(counts),
                    "unused_entries": unused_entries(counts),
                }
                for level, counts in enumerate(self.code_counts)
            ],
        }


class Totals:
    """Sums up reports, which come in any order, without keeping them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.done: set[int] = set()  # indices of shards
        self.audio_s = 0.0  # of these shards, as the plan estimates it
        self.failures = 0
        self._failures: dict[int, tuple[Failure, ...]] = {}
        self._clips = self._num_samples = self._frames = self._size_bytes = 0
        self._counts = np.zeros((plan.settings.n_q, plan.settings.codebook_size), np.int64)

    def add(self, report: ShardReport) -> None:
        """Take a shard into the sums."""
        self.done.add(report.index)
        self.audio_s += self._plan.shards[report.index].audio_s
        self.failures += len(report.failures)
        if report.failures:
            self._failures[report.index] = report.failures
        self._clips += report.clips
        self._num_samples += report.num_samples
        self._frames += report.frames
        self._size_bytes += sum(report.files.values())
        self._counts += report.code_counts

    def result(self) -> Summary:
        """Return the sums up to now."""
        failures = tuple(failure for index in sorted(self._failures) for failure in self._failures[index])
        return Summary(
            self._plan, len(self.done), self._clips, self._num_samples, self._frames, self._size_bytes, self._counts,
            failures,
        )  # fmt: skip


def done_shards(plan: Plan) -> Totals:
    """Sum up the shards that are done.

    Raises:
        DataError: a report can't be read.
    """
    totals = Totals(plan)
    for index in range(len(plan.shards)):
        report = read_report(plan, index)
        if report is not None:
            totals.add(report)
    return totals


def read_summary(folder: Path) -> Summary:
    """Sum up the output in a folder.

    Raises:
        DataNotFoundError: the folder holds no output of `dmcodec tokenize`.
        DataError: its plan or a report is damaged.
    """
    return done_shards(read_plan(folder)).result()
