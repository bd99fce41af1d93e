"""Runs an evaluation: clip by clip through every column, metrics side by side, figures at the end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from dmcodec.audio import Waveform, prepare_waveform, read_audio
from dmcodec.benchmarks.evaluation.clips import Clip, find_clips
from dmcodec.benchmarks.evaluation.columns import Column, Original, Source, open_sources
from dmcodec.benchmarks.evaluation.metrics import require_packages
from dmcodec.benchmarks.evaluation.models import Models, load_models
from dmcodec.benchmarks.evaluation.options import ORIGINAL, EvaluateOptions
from dmcodec.benchmarks.evaluation.recogniser import Recogniser
from dmcodec.benchmarks.evaluation.results import Evaluation
from dmcodec.benchmarks.evaluation.scores import ScoreBook
from dmcodec.benchmarks.evaluation.signal_metrics import GROUPS, SAMPLE_RATE
from dmcodec.benchmarks.evaluation.speaker import SpeakerModel
from dmcodec.benchmarks.evaluation.summary import summarise
from dmcodec.benchmarks.evaluation.workers import Task, run_tasks
from dmcodec.errors import AudioError, EvaluationError, MetricError

# Called with how many measurements are done, and how many there are.
Progress = Callable[[int, int], None]


def evaluate(
    options: EvaluateOptions,
    progress: Progress | None = None,
    recogniser: Recogniser | None = None,
    speaker: SpeakerModel | None = None,
) -> Evaluation:
    """Evaluates codecs against the reference folder.

    Signal metrics run in processes of their own (`options.jobs`), which are spawned: a script that calls this needs the
    usual `if __name__ == "__main__":`.

    Args:
        options: what to evaluate.
        progress: called as measurements are done.
        recogniser, speaker: instead of those that the options name.

    Raises:
        ArgumentError, InputNotFoundError: options that don't fit each other or the files.
        MissingDependencyError: a package that a metric needs isn't installed.
        PretrainedModelError: the recogniser or the speaker model can't be loaded.
        EvaluationError: not a single figure could be had.
    """
    require_packages(options.wanted)
    clips = find_clips(options.reference, options.limit)
    sources = open_sources(options, clips)
    models = load_models(options, clips, recogniser, speaker)
    run = _Run(options, clips, sources, models, progress)
    run.measure_all()
    evaluation = summarise(options, clips, models, run.book, run.audio)
    if not any(column.clips[clip.name].values for column in evaluation.result.columns for clip in clips):
        failures = next(iter(evaluation.result.columns[0].clips.values())).failures
        raise EvaluationError(f"{options.reference}: nothing could be measured ({next(iter(failures.values()))})")
    return evaluation


def chosen_for_listening(clips: Sequence[Clip], count: int) -> tuple[str, ...]:
    """Names of `count` clips, evenly spread over all of them: nobody's pick."""
    count = min(count, len(clips))
    return tuple(clips[index * len(clips) // count].name for index in range(count))


@dataclasses.dataclass
class _Run:
    """The state of one evaluation while it runs."""

    options: EvaluateOptions
    clips: Sequence[Clip]
    sources: Sequence[Source]
    models: Models
    progress: Progress | None

    def __post_init__(self) -> None:
        self.columns: tuple[Column, ...] = tuple(column for source in self.sources for column in source.columns)
        self.book = ScoreBook(self.columns)
        self.audio: dict[str, dict[str, Waveform]] = {}
        self._listen = chosen_for_listening(self.clips, self.options.report_clips)
        self._groups = [keys for group in GROUPS if (keys := tuple(key for key in group if key in self.options.wanted))]
        self._done = 0

    def measure_all(self) -> None:
        """Fills the book."""
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
                self.book.unreadable(clip.name, self.options.wanted, str(error))
                continue
            yield from self._clip_tasks(original)

    def _clip_tasks(self, original: Original) -> Iterator[Task]:
        clip = original.clip
        self.book.durations_s[clip.name] = len(original.waveform) / SAMPLE_RATE
        self._keep(clip, ORIGINAL, original.waveform)
        self.models.meet_original(clip.name, original.waveform, self.book)
        for source in self.sources:
            try:
                reconstructions = source.reconstruct(original)
            except MetricError as error:
                self._fail(source.columns, clip, str(error))
                continue
            for name, found in reconstructions.items():
                self.book.add_reconstruction(name, clip.name, len(original.waveform), len(found.waveform), found.codes)
                self._keep(clip, name, found.waveform)
                yield from self._pair_tasks(name, clip, original.waveform, found.waveform)

    def _pair_tasks(self, column: str, clip: Clip, reference: Waveform, degraded: Waveform) -> Iterator[Task]:
        common = min(len(reference), len(degraded))
        for keys in self._groups:
            yield Task(column, clip.name, keys, reference[:common], degraded[:common])
        self.models.meet(column, clip.name, degraded, self.book)
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
        if self.progress:
            self.progress(self._done, len(self.clips) * len(self.columns) * (len(self._groups) + self.models.count))
