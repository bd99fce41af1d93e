"""From the book of one evaluation to its result: figures over all clips, and the remarks that belong to them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dmcodec import __version__
from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluation import confidence
from dmcodec.benchmarks.evaluation.clips import Clip
from dmcodec.benchmarks.evaluation.codebooks import codebook_use
from dmcodec.benchmarks.evaluation.columns import Column
from dmcodec.benchmarks.evaluation.metrics import METRICS, WORD_METRICS
from dmcodec.benchmarks.evaluation.models import Models
from dmcodec.benchmarks.evaluation.options import ORIGINAL, EvaluateOptions
from dmcodec.benchmarks.evaluation.results import ClipScore, ColumnResult, Evaluation, EvaluationResult
from dmcodec.benchmarks.evaluation.scores import ScoreBook
from dmcodec.benchmarks.evaluation.words import word_error_rate, word_information_lost

FEW_FILES = 10
_RATES = {"wer": word_error_rate, "wil": word_information_lost}


def summarise(
    options: EvaluateOptions,
    clips: Sequence[Clip],
    models: Models,
    book: ScoreBook,
    audio: Mapping[str, Mapping[str, Waveform]],
) -> Evaluation:
    """The result of a book that is full."""
    names = [clip.name for clip in clips]
    columns = tuple(_column(column, options, options.wanted, book, names) for column in book.columns)
    result = EvaluationResult(
        reference=str(options.reference),
        clips={name: book.durations_s[name] for name in names},
        metrics=options.wanted,
        definitions=_definitions(options.wanted, models),
        columns=columns,
        original=_original(options, models, book, names),
        reference_texts=dict(models.words.references) if models.words else {},
        intervals=confidence.describe(options.seed),
        remarks=tuple(_remarks(models, book, columns)),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=options.command,
        dmcodec_version=__version__,
    )
    return Evaluation(result, audio)


def _column(
    column: Column, options: EvaluateOptions, keys: Sequence[str], book: ScoreBook, names: Sequence[str]
) -> ColumnResult:
    scores = book.scores(column.name, names)
    summary = {key: _estimate(key, scores.values(), options.seed) for key in keys}
    codes = book.codes.get(column.name, [])
    use = codebook_use(codes, column.codebook_size) if column.codebook_size else None
    return ColumnResult(column, summary, use, scores)


def _original(options: EvaluateOptions, models: Models, book: ScoreBook, names: Sequence[str]) -> ColumnResult | None:
    """The originals' own word errors; without transcripts these would be none by definition."""
    if not models.words or models.words.transcripts is None:
        return None
    column = Column(ORIGINAL, str(options.reference), "the reference itself")
    return _column(column, options, models.words.rates, book, names)


def _estimate(key: str, scores: Iterable[ClipScore], seed: int) -> confidence.Estimate:
    found = list(scores)
    failed = sum(key in score.failures for score in found)
    if key in WORD_METRICS:
        sums = np.array([score.words.sums for score in found if score.words], np.float64).reshape(-1, 4)
        return confidence.bootstrap(sums, _RATES[key], failed, seed)
    return confidence.mean_estimate([score.values[key] for score in found if key in score.values], failed, seed)


def _definitions(keys: Sequence[str], models: Models) -> dict[str, str]:
    said = models.definitions
    return {key: "; ".join(filter(None, (METRICS[key].described(), said.get(key)))) for key in keys}


def _remarks(models: Models, book: ScoreBook, columns: Sequence[ColumnResult]) -> list[str]:
    remarks = [
        "Everything is measured at 16 kHz mono, both clips cut to the length of the shorter; nothing is aligned in "
        "time or level beforehand."
    ]
    for name, clips in book.other_lengths.items():
        if clips:
            remarks.append(
                f"{name}: {len(clips)} files differ in length from the original by more than 0.5 s or 5 % "
                f"({', '.join(clips[:3])}{', ...' if len(clips) > 3 else ''}); are they the same speech?"
            )
    if models.words and models.words.transcripts is None:
        remarks.append(
            "WER and WIL count against the recogniser's own text of the original, not against true transcripts: they "
            "don't compare with published ones."
        )
    if any(estimate.failed for column in columns for estimate in column.summary.values()):
        remarks.append("Where n is given, some files have no value: see what could not be measured.")
    files = sum(duration is not None for duration in book.durations_s.values())
    if files == 1:
        remarks.append("A single file has no confidence interval.")
    elif files < FEW_FILES:
        remarks.append(f"Over fewer than {FEW_FILES} files, bootstrap intervals come out too narrow.")
    return remarks
