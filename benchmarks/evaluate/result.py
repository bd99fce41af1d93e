"""Result of `dmcodec evaluate`, and the book that collects it. Field names are the JSON keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dmcodec.audio import Waveform
from dmcodec.benchmarks.stability import Stability
from dmcodec.codes import Codes

from .columns import Column, lengths_differ
from .metrics import METRICS, NO_REFERENCE, WORD_METRICS
from .options import ORIGINAL
from .published import Published
from .signal_metrics import SAMPLE_RATE
from .statistics import CodebookUse, Estimate
from .words import WordCounts


@dataclasses.dataclass(frozen=True)
class ClipScore:
    """One clip in one column.

    Attributes:
        values: values by metric.
        failures: reasons of the metrics without a value.
        length_difference_s: length of the reconstruction minus that of the original, before both are cut to the length
            of the shorter; None without a reconstruction.
        text: recognised text, not normalised; None without a recogniser.
        words: counts for WER and WIL.
    """

    values: Mapping[str, float]
    failures: Mapping[str, str]
    length_difference_s: float | None = None
    text: str | None = None
    words: WordCounts | None = None


@dataclasses.dataclass(frozen=True)
class ColumnResult:
    """One column: statistics over all clips by metric, and each clip.

    Of codecs that ran here also the codebook use and, where it was asked for, the token stability.
    """

    column: Column
    summary: Mapping[str, Estimate]
    codebooks: CodebookUse | None
    clips: Mapping[str, ClipScore]
    stability: Stability | None = None


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """Result of one evaluation.

    Attributes:
        reference: folder of the originals.
        clips: durations in seconds by name; None where the original can't be read.
        metrics: keys, in order.
        definitions: definition of each metric, with mode and versions.
        columns: codecs that ran here, then folders.
        original: metrics without a reference and, with transcripts, the recogniser's errors, of the originals.
        reference_texts: by clip, not normalised; empty without a recogniser.
        intervals: method of the confidence intervals.
        remarks: conditions that readers of the statistics must know.
        date: start in UTC, ISO 8601.
        published: figures that were not measured here.
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
    published: tuple[Published, ...] = ()

    @property
    def published_rows(self) -> tuple[Published, ...]:
        """Published figures of a metric that is measured."""
        return tuple(row for row in self.published if any(key in row.values for key in self.metrics))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; each metric has its label, unit, direction and definition."""
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
    """A result, and the audio of some clips for the listening page.

    Attributes:
        audio: waveforms (samples,) at 16 kHz by clip and column, at their full lengths. The first column is ORIGINAL.
    """

    result: EvaluationResult
    audio: Mapping[str, Mapping[str, Waveform]]


@dataclasses.dataclass
class _Entry:
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    length_difference_s: float | None = None
    text: str | None = None
    words: WordCounts | None = None


class ScoreBook:
    """Collects the results of a running evaluation, by column and clip. The originals are the column ORIGINAL.

    Attributes:
        columns: without ORIGINAL.
        codes: codes (n_q, frames) of each clip, by column.
        durations_s: durations of the originals by clip; None where an original can't be read.
        other_lengths: names of the clips whose length differs from the original's, by column.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.codes: dict[str, list[Codes]] = {column.name: [] for column in columns}
        self.durations_s: dict[str, float | None] = {}
        self.other_lengths: dict[str, list[str]] = {column.name: [] for column in columns}
        self._entries: dict[str, dict[str, _Entry]] = {name: {} for name in (*self.codes, ORIGINAL)}

    def add(self, column: str, clip: str, values: Mapping[str, float], failures: Mapping[str, str]) -> None:
        """Add values, and the reasons of metrics without a value."""
        entry = self._entry(column, clip)
        entry.values.update(values)
        entry.failures.update(failures)

    def add_words(self, column: str, clip: str, text: str, words: WordCounts, rates: Mapping[str, float]) -> None:
        """Add a recognised text, its counts, and the rates of this clip."""
        entry = self._entry(column, clip)
        entry.text, entry.words = text, words
        entry.values.update(rates)

    def add_reconstruction(
        self, column: str, clip: str, reference_samples: int, samples: int, codes: Codes | None
    ) -> None:
        """Add the lengths in samples at 16 kHz, and the codes (n_q, frames) where they are known."""
        self._entry(column, clip).length_difference_s = (samples - reference_samples) / SAMPLE_RATE
        if lengths_differ(reference_samples, samples):
            self.other_lengths[column].append(clip)
        if codes is not None:
            self.codes[column].append(codes)

    def add_unreadable(self, clip: str, metrics: Iterable[str], reason: str) -> None:
        """Add the reason why an original can't be read."""
        self.durations_s[clip] = None
        self.add(ORIGINAL, clip, {}, {key: reason for key in metrics if key in (*WORD_METRICS, *NO_REFERENCE)})

    def scores(self, column: str, clips: Iterable[str]) -> dict[str, ClipScore]:
        """Return the results of one column, frozen, in the order of `clips`."""
        fields = [field.name for field in dataclasses.fields(_Entry)]
        return {
            clip: ClipScore(**{name: getattr(self._entry(column, clip), name) for name in fields}) for clip in clips
        }

    def _entry(self, column: str, clip: str) -> _Entry:
        return self._entries[column].setdefault(clip, _Entry())
