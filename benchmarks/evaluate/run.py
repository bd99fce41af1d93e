"""One evaluation: each clip runs through each column, then the statistics over all clips are computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from dmcodec import __version__
from dmcodec.audio import Waveform, prepare_waveform, read_audio
from dmcodec.benchmarks.machine import utc_now
from dmcodec.benchmarks.stability import Stability
from dmcodec.benchmarks.tables import count_of
from dmcodec.benchmarks.timing import Progress, no_progress
from dmcodec.errors import AudioError, EvaluationError, MetricError
from dmcodec.extras import require

from . import stability, statistics
from .columns import Clip, Column, Original, Source, find_clips, left_out, open_sources
from .metrics import METRICS, NO_REFERENCE, WORD_METRICS, require_packages
from .models import Models, load_models
from .options import MAX_REPORT_CLIPS, ORIGINAL, EvaluateOptions
from .published import Published, read_published
from .recogniser import TextRecogniser
from .result import ClipScore, ColumnResult, Evaluation, EvaluationResult, ScoreBook
from .signal_metrics import GROUPS, SAMPLE_RATE
from .speaker import SpeakerModel
from .words import word_error_rate, word_information_lost
from .workers import Task, run_tasks

_RATES = {"wer": word_error_rate, "wil": word_information_lost}


def run_evaluation(
    options: EvaluateOptions,
    progress: Progress = no_progress,
    recogniser: TextRecogniser | None = None,
    speaker: SpeakerModel | None = None,
) -> Evaluation:
    """Evaluate codecs against the reference folder.

    Signal metrics run in `options.jobs` worker processes, which are spawned: a script that calls this needs
    `if __name__ == "__main__":`.

    Args:
        options: what to evaluate.
        progress: called after each step.
        recogniser, speaker: replace those that the options name.

    Raises:
        ArgumentError, InputNotFoundError: the options don't fit each other or the files.
        MissingDependencyError: a package that a metric needs isn't installed.
        PretrainedModelError: the recogniser or the speaker model can't be loaded.
        EvaluationError: no metric has a value for any file.
    """
    date = utc_now()
    require_packages(options.wanted)
    published = read_published(options.published, options.wanted) if options.published else ()
    if options.stability:
        require("stability", "evaluate", "rapidfuzz", "pystoi")
    clips = find_clips(options.reference, options.limit)
    sources = open_sources(options, clips)
    if options.stability and not options.wanted:  # no other clip is needed
        clips = spread(clips, options.stability.files)
    models = load_models(options, clips, recogniser, speaker)
    run = _Run(options, clips, sources, models, progress)
    run.measure_all()
    found: dict[str, Stability] = {}
    if options.stability:
        chosen = spread(clips, options.stability.files)
        found = stability.stability_of_columns(sources, chosen, options.stability, progress)
    evaluation = summarise(options, clips, sources, models, run.book, run.audio, date, found, published)
    _refuse_nothing(evaluation.result)
    return evaluation


def spread(clips: Sequence[Clip], count: int) -> tuple[Clip, ...]:
    """Return `count` clips, at equal distances in the list, so that the choice has no bias."""
    count = min(count, len(clips))
    return tuple(clips[index * len(clips) // count] for index in range(count))


def chosen_for_listening(clips: Sequence[Clip], count: int) -> tuple[str, ...]:
    """Return the names of `count` clips, at equal distances in the list."""
    return tuple(clip.name for clip in spread(clips, count))


def _refuse_nothing(result: EvaluationResult) -> None:
    """Raise EvaluationError where no column has a value for any clip."""
    if any(column.stability and column.stability.files for column in result.columns):
        return
    scores = [score for column in result.columns for score in column.clips.values()]
    if any(score.values for score in scores):
        return
    reasons = [reason for score in scores for reason in score.failures.values()]
    reasons += [why for column in result.columns if column.stability for why in column.stability.skipped.values()]
    raise EvaluationError(f"{result.reference}: nothing could be measured ({reasons[0]})")


@dataclasses.dataclass
class _Run:
    """The state of one evaluation while it runs."""

    options: EvaluateOptions
    clips: Sequence[Clip]
    sources: Sequence[Source]
    models: Models
    progress: Progress

    def __post_init__(self) -> None:
        self.columns: tuple[Column, ...] = tuple(column for source in self.sources for column in source.columns)
        self.book = ScoreBook(self.columns)
        self.audio: dict[str, dict[str, Waveform]] = {}
        self._listen = chosen_for_listening(self.clips, min(MAX_REPORT_CLIPS, self.options.report_clips))
        self._groups = [keys for group in GROUPS if (keys := tuple(key for key in group if key in self.options.wanted))]
        self._original_groups = [group for group in self._groups if set(group) <= set(NO_REFERENCE)]
        self._done = 0

    def measure_all(self) -> None:
        """Fill the book."""
        self._step(0)
        for outcome in run_tasks(self._tasks(), self.options.jobs):
            self.book.add(outcome.column, outcome.clip, outcome.values, outcome.failures)
            self._step(1)

    def _tasks(self) -> Iterator[Task]:
        for clip in self.clips:
            try:
                samples, rate = read_audio(clip.path)
                original = Original(clip, samples, rate, prepare_waveform(samples, rate, SAMPLE_RATE, str(clip.path)))
            except AudioError as error:
                self._fail(self.columns, clip, f"the original can't be read: {error}")
                self._step(len(self._original_groups))
                self.book.add_unreadable(clip.name, self.options.wanted, str(error))
                continue
            yield from self._clip_tasks(original)

    def _clip_tasks(self, original: Original) -> Iterator[Task]:
        clip = original.clip
        self.book.durations_s[clip.name] = len(original.waveform) / SAMPLE_RATE
        self._keep(clip, ORIGINAL, original.waveform)
        self.models.add_original(clip.name, original.waveform, self.book)
        for keys in self._original_groups:
            yield Task(ORIGINAL, clip.name, keys, original.waveform, original.waveform)
        for source in self.sources:
            try:
                reconstructions = source.reconstruct(original)
            except MetricError as error:
                self._fail(source.columns, clip, str(error))
                continue
            for name, result in reconstructions.items():
                waveform = result.waveform
                self.book.add_reconstruction(name, clip.name, len(original.waveform), len(waveform), result.codes)
                self._keep(clip, name, waveform)
                yield from self._pair_tasks(name, clip, original.waveform, waveform)

    def _pair_tasks(self, column: str, clip: Clip, reference: Waveform, degraded: Waveform) -> Iterator[Task]:
        common = min(len(reference), len(degraded))
        for keys in self._groups:
            yield Task(column, clip.name, keys, reference[:common], degraded[:common])
        self.models.add_reconstruction(column, clip.name, degraded, self.book)
        self._step(self.models.count)

    def _fail(self, columns: Sequence[Column], clip: Clip, reason: str) -> None:
        for column in columns:
            self.book.add(column.name, clip.name, {}, dict.fromkeys(self.options.wanted, reason))
            self._step(len(self._groups) + self.models.count)

    def _keep(self, clip: Clip, column: str, waveform: Waveform) -> None:
        if clip.name in self._listen:
            self.audio.setdefault(clip.name, {})[column] = waveform

    def _step(self, count: int) -> None:
        self._done += count
        each = len(self.columns) * (len(self._groups) + self.models.count) + len(self._original_groups)
        total = len(self.clips) * each
        self.progress("evaluate", self._done, total)


def summarise(
    options: EvaluateOptions,
    clips: Sequence[Clip],
    sources: Sequence[Source],
    models: Models,
    book: ScoreBook,
    audio: Mapping[str, Mapping[str, Waveform]],
    date: str,
    tokens: Mapping[str, Stability],
    published: tuple[Published, ...] = (),
) -> Evaluation:
    """Compute the statistics over all clips of a full book, and the remarks that belong to them."""
    names = [clip.name for clip in clips]
    columns = tuple(
        dataclasses.replace(_column(column, options, options.wanted, book, names), stability=tokens.get(column.name))
        for column in book.columns
    )
    of_stability = stability.remarks(sources, tokens) if options.stability else []
    result = EvaluationResult(
        reference=str(options.reference),
        clips={name: book.durations_s[name] for name in names},
        metrics=options.wanted,
        definitions=_definitions(options.wanted, models),
        columns=columns,
        original=_original(options, models, book, names),
        reference_texts=dict(models.words.references) if models.words else {},
        intervals=statistics.describe(options.seed),
        remarks=(*_remarks(models, book, columns), *of_stability, *_left_out(options)),
        date=date,
        command=options.command,
        dmcodec_version=__version__,
        published=published,
    )
    return Evaluation(result, audio)


def _column(
    column: Column, options: EvaluateOptions, keys: Sequence[str], book: ScoreBook, names: Sequence[str]
) -> ColumnResult:
    scores = book.scores(column.name, names)
    summary = {key: _estimate(key, scores.values(), options.seed) for key in keys}
    codes = book.codes.get(column.name, [])
    use = statistics.codebook_use(codes, column.codebook_size) if column.codebook_size else None
    return ColumnResult(column, summary, use, scores)


def _original(options: EvaluateOptions, models: Models, book: ScoreBook, names: Sequence[str]) -> ColumnResult | None:
    """Return what the originals themselves have: metrics without a reference, and word errors; None for nothing.

    Without transcripts there are no word errors: they would be 0 by definition.
    """
    keys = tuple(key for key in options.wanted if key in NO_REFERENCE)
    if models.words and models.words.transcripts is not None:
        keys += models.words.rates
    if not keys:
        return None
    return _column(Column(ORIGINAL, str(options.reference), "the reference itself"), options, keys, book, names)


def _estimate(key: str, scores: Iterable[ClipScore], seed: int) -> statistics.Estimate:
    scores = list(scores)
    failed = sum(key in score.failures for score in scores)
    if key in WORD_METRICS:
        sums = np.array([score.words.sums for score in scores if score.words], np.float64).reshape(-1, 4)
        return statistics.bootstrap(sums, _RATES[key], failed, seed)
    return statistics.mean_estimate([score.values[key] for score in scores if key in score.values], failed, seed)


def _definitions(keys: Sequence[str], models: Models) -> dict[str, str]:
    of_models = models.definitions
    return {key: "; ".join(filter(None, (METRICS[key].described(), of_models.get(key)))) for key in keys}


def _left_out(options: EvaluateOptions) -> Iterator[str]:
    for folder in (options.reference, *(entry.path for entry in options.against)):
        if line := left_out(folder):
            yield f"{folder}: {line}"


def _remarks(models: Models, book: ScoreBook, columns: Sequence[ColumnResult]) -> list[str]:
    remarks = [
        "All metrics are computed at 16 kHz mono. Both clips are cut to the length of the shorter; dmcodec "
        "does not align them in time or level before that."
    ]
    for name, clips in book.other_lengths.items():
        if clips:
            remarks.append(
                f"{name}: {count_of(len(clips), 'file')} whose length differs from the original's by over 0.5 s or "
                f"5 % ({', '.join(clips[:3])}{', ...' if len(clips) > 3 else ''}); do they hold the same speech?"
            )
    if models.words and models.words.transcripts is None:
        remarks.append(
            "The reference texts of WER and WIL are the recogniser's own texts of the originals, not true transcripts: "
            "these rates can't be compared with published ones."
        )
    if any(estimate.failed for column in columns for estimate in column.summary.values()):
        remarks.append("Where n is given, some files have no value; see Failures.")
    files = sum(duration is not None for duration in book.durations_s.values())
    if files == 1:
        remarks.append("A single file has no confidence interval.")
    elif files < statistics.ENOUGH_FILES:
        remarks.append(
            f"With fewer than {statistics.ENOUGH_FILES} files, bootstrap intervals are too narrow; tables and pages "
            "leave them out."
        )
    return remarks
