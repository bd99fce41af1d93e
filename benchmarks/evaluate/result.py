"""What an evaluation found: every figure with its interval, every clip, and every failure with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dmcodec.audio import Waveform
from dmcodec.codes import Codes

from .columns import Column, lengths_differ
from .metrics import METRICS, WORD_METRICS
from .options import ORIGINAL
from .signal_metrics import SAMPLE_RATE
from .statistics import CodebookUse, Estimate
from .words import WordCounts

# FOLDED: The book that a running evaluation writes its findings into.


@dataclasses.dataclass(frozen=True)
class ClipScore:
    """One clip in one column: for each metric either a value or the reason why there is none.

    Attributes:
        length_difference_s: reconstruction minus original, before the cut to the shorter; None where it is missing.
        text: as recognised, not normalised; None where no recogniser ran.
        words: counts behind WER and WIL.
    """

    values: Mapping[str, float]
    failures: Mapping[str, str]
    length_difference_s: float | None = None
    text: str | None = None
    words: WordCounts | None = None


@dataclasses.dataclass(frozen=True)
class ColumnResult:
    """One column: figures over all clips by metric, codebook use (of codecs that were run), and each clip's."""

    column: Column
    summary: Mapping[str, Estimate]
    codebooks: CodebookUse | None
    clips: Mapping[str, ClipScore]


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """A whole evaluation.

    Attributes:
        reference: the folder of originals.
        clips: durations in seconds by name, None where the original couldn't be read.
        metrics: keys in order.
        definitions: by metric, with mode and versions.
        columns: codecs that were run, then folders.
        original: the recogniser's errors on the originals themselves; only where there are transcripts.
        reference_texts: by clip, not normalised; empty where no recogniser ran.
        intervals: how confidence intervals were made.
        remarks: what a reader must know to read the figures right.
        date, command, dmcodec_version: for the record.
    """

    reference: str
    clips: Mapping[str, float | None]
    metrics: tuple[str, ...]
    definitions: Mapping[str, str]
    columns: tuple[ColumnResult, ...]
    original: ColumnResult | None
    reference_texts: Mapping[str, str]
    intervals: str
    remarks: tuple[str, ...]
    date: str
    command: str
    dmcodec_version: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; metrics carry label, unit, direction and definition."""
        values = dataclasses.asdict(self)
        del values["definitions"]
        values["metrics"] = {
            key: {
                "label": METRICS[key].label,
                "unit": METRICS[key].unit,
                "higher_is_better": METRICS[key].higher_is_better,
                "definition": self.definitions[key],
            }
            for key in self.metrics
        }
        return values


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A result, and the audio of the clips that were chosen for listening: by clip, then by column, at 16 kHz.

    The original comes first, under the name "original"; lengths are those before the cut.
    """

    result: EvaluationResult
    audio: Mapping[str, Mapping[str, Waveform]]


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
        if lengths_differ(reference_samples, samples):
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
