"""What an evaluation found: every figure with its interval, every clip, and every failure with its reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluation.codebooks import CodebookUse
from dmcodec.benchmarks.evaluation.columns import Column
from dmcodec.benchmarks.evaluation.confidence import Estimate
from dmcodec.benchmarks.evaluation.metrics import METRICS
from dmcodec.benchmarks.evaluation.words import WordCounts


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
