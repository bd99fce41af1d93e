"""The book that a running evaluation writes its findings into."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from dmcodec.benchmarks.evaluation.clips import remarkable
from dmcodec.benchmarks.evaluation.columns import Column
from dmcodec.benchmarks.evaluation.metrics import WORD_METRICS
from dmcodec.benchmarks.evaluation.options import ORIGINAL
from dmcodec.benchmarks.evaluation.results import ClipScore
from dmcodec.benchmarks.evaluation.signal_metrics import SAMPLE_RATE
from dmcodec.benchmarks.evaluation.words import WordCounts
from dmcodec.tokens import Codes


@dataclasses.dataclass
class _Page:
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    length_difference_s: float | None = None
    text: str | None = None
    words: WordCounts | None = None


class ScoreBook:
    """Findings by column and clip; the originals' own word errors stand under "original"."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.codes: dict[str, list[Codes]] = {column.name: [] for column in columns}
        self.durations_s: dict[str, float | None] = {}
        self.other_lengths: dict[str, list[str]] = {column.name: [] for column in columns}
        self._pages: dict[str, dict[str, _Page]] = {name: {} for name in (*self.codes, ORIGINAL)}

    def add(self, column: str, clip: str, values: Mapping[str, float], failures: Mapping[str, str]) -> None:
        """Adds values and reasons for their absence."""
        page = self._page(column, clip)
        page.values.update(values)
        page.failures.update(failures)

    def add_words(self, column: str, clip: str, text: str, words: WordCounts, rates: Mapping[str, float]) -> None:
        """Adds what was recognised."""
        page = self._page(column, clip)
        page.text, page.words = text, words
        page.values.update(rates)

    def add_reconstruction(
        self, column: str, clip: str, reference_samples: int, samples: int, codes: Codes | None
    ) -> None:
        """Adds the lengths, which should be equal, and the codes where they are known."""
        self._page(column, clip).length_difference_s = (samples - reference_samples) / SAMPLE_RATE
        if remarkable(reference_samples, samples):
            self.other_lengths[column].append(clip)
        if codes is not None:
            self.codes[column].append(codes)

    def unreadable(self, clip: str, wanted: Iterable[str], reason: str) -> None:
        """Notes that an original can't be read."""
        self.durations_s[clip] = None
        self.add(ORIGINAL, clip, {}, {key: reason for key in wanted if key in WORD_METRICS})

    def scores(self, column: str, clips: Iterable[str]) -> dict[str, ClipScore]:
        """The findings of one column, frozen, in the order of `clips`."""
        fields = [field.name for field in dataclasses.fields(_Page)]
        return {clip: ClipScore(**{name: getattr(self._page(column, clip), name) for name in fields}) for clip in clips}

    def _page(self, column: str, clip: str) -> _Page:
        return self._pages[column].setdefault(clip, _Page())
