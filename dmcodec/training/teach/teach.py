"""`train teach`: transcripts, then the features of a speech and a language model, in a data folder; each resumable."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ArgumentError, OutputExistsError
from dmcodec.files import make_folder
from dmcodec.pretrained.loading import TEACHING, pick_device, set_threads, transformers
from dmcodec.pretrained.recognisers import Recogniser, load_recogniser
from dmcodec.pretrained.transcription import Transcription
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.data.features import TeacherInfo
from dmcodec.training.data.given_transcripts import GivenTranscripts, read_given_transcripts
from dmcodec.training.data.layout import META, TEACHERS
from dmcodec.training.data.storage import sha256_of

from . import store
from .language_model import LanguageModel
from .merge import merge_transcripts, segments_to_recognise
from .speech_model import SpeechModel
from .transcripts import (
    Transcript,
    has_transcripts,
    read_transcripts,
    recognise_segments,
    transcripts_path,
    write_transcripts,
)

Report = Callable[[str, int, int], None]
Result = TypeVar("Result")
WORK = ".teach"


@dataclass(frozen=True)
class TeachSettings:
    """Which teachers to use, and how.

    Attributes:
        sm: speech model, or None.
        lm: language model, or None.
        asr: recogniser, or None where all transcripts are given.
        sm_layer: "avg", "last", or the number of a hidden state.
        lm_layer: likewise.
        align: give the LM's tokens the times of their words, instead of the paper's form.
        language: of the speech, for multilingual Whisper recognisers.
        asr_window_s: of Whisper recognisers; None is their own 30 s.
        frame_rate_hz: of aligned LM features.
        batch_size: segments in a batch.
        device: of torch; None is cuda where there is a GPU, else cpu.
        threads: of the CPU; None leaves torch's choice.
    """

    sm: str | None = None
    lm: str | None = None
    asr: str | None = None
    sm_layer: str = "avg"
    lm_layer: str = "avg"
    align: bool = False
    language: str | None = None
    asr_window_s: float | None = None
    frame_rate_hz: float = 50.0
    batch_size: int = 16
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.sm is None and self.lm is None:
            raise ArgumentError("name a teacher: --sm MODEL, --lm MODEL or both")
        if self.batch_size < 1:
            raise ArgumentError(f"--batch-size {self.batch_size} must be at least 1")
        if self.threads is not None and self.threads < 1:
            raise ArgumentError(f"--threads {self.threads} must be at least 1")
        if not 1 <= self.frame_rate_hz <= 1000:
            raise ArgumentError(f"--frame-rate {self.frame_rate_hz} must be from 1 to 1000 Hz")


def teach(
    folder: Path,
    settings: TeachSettings,
    given: GivenTranscripts | None = None,
    force: bool = False,
    report: Report | None = None,
    per_shard: int = store.SEGMENTS_PER_SHARD,
) -> dict[str, TeacherInfo]:
    """Store transcripts and teachers' features in a data folder, or resume an interrupted call.

    Args:
        folder: of prepared data.
        settings: of the teachers.
        given: transcripts by source name; None uses those that the data were prepared with.
        force: replace features and transcripts that were made with other settings.
        report: called with (stage, done, total).
        per_shard: segments in a shard of features.

    Returns:
        Descriptions of the features, by kind of teacher.

    Raises:
        DataError: not a data folder, or altered audio.
        TeacherError: a teacher can't be loaded, fails, or gives values that can't be stored.
        OutputExistsError: the folder holds results of other settings, and `force` is false.
    """
    data = PreparedData.open_without_teachers(folder)
    transformers(TEACHING)
    data.verify()
    set_threads(settings.threads)
    device = pick_device(settings.device)
    run = _Run(data, settings, device, force, report or (lambda _stage, _done, _total: None), per_shard)
    infos: dict[str, TeacherInfo] = {}
    if settings.sm:
        infos["sm"] = run.speech_features(settings.sm)
    if settings.lm:
        rate_hz = run.transcribe(read_given_transcripts(folder) if given is None else given)
        infos["lm"] = run.text_features(settings.lm, rate_hz)
    return infos


@dataclass(frozen=True)
class _Run:
    """One call of `teach`; arguments as there."""

    data: PreparedData
    settings: TeachSettings
    device: str
    force: bool
    report: Report
    per_shard: int

    def speech_features(self, name: str) -> TeacherInfo:
        """Store the features of the speech model."""
        layer = self.settings.sm_layer
        model = SpeechModel(name, layer, self.device, self.data.sample_rate)
        identity = self._identity(name, model.weights_id, layer)

        def features(segments: Sequence[int]) -> list[NDArray[np.float32]]:
            return self._in_batches(segments, not model.pads, model.features)

        description = {
            "kind": "sm", "model": name, "width": model.width, "frame_rate_hz": model.frame_rate_hz, "layers": layer,
            "aligned": False,
        }  # fmt: skip
        return self._store(description, identity, features, "speech model")

    def transcribe(self, given: GivenTranscripts) -> float:
        """Write transcripts.parquet where it is missing; return the frame rate that the paper's form pads to."""
        settings, path = self.settings, transcripts_path(self.data)
        recogniser = None
        identity: dict[str, Any] = {"fingerprint": self.data.fingerprint, "given": _hash(given)}
        if settings.asr:
            recogniser = load_recogniser(
                settings.asr, self.device, self.data.sample_rate, settings.language, settings.asr_window_s
            )
            identity |= {"asr": settings.asr, "asr_weights": recogniser.weights_id, "language": settings.language}
            identity |= {"asr_window_s": settings.asr_window_s}
        rate_hz = recogniser.frame_rate_hz if recogniser else 50.0
        if has_transcripts(path, identity):
            return rate_hz
        if (self.data.folder / TEACHERS / "lm" / META).exists() and not self.force:
            raise OutputExistsError(
                f"{path}: the language model's features are of other transcripts or another recogniser; "
                "use --force to replace them"
            )
        recognised = self._recognise(recogniser, given, identity) if recogniser else {}
        write_transcripts(path, merge_transcripts(self.data, given, recognised), identity)
        shutil.rmtree(self.data.folder / WORK, ignore_errors=True)
        return rate_hz

    def text_features(self, name: str, rate_hz: float) -> TeacherInfo:
        """Store the features of the language model; `rate_hz` is the frame rate of the paper's form."""
        settings = self.settings
        model = LanguageModel(name, settings.lm_layer, self.device)
        path = transcripts_path(self.data)
        if settings.align:
            rate_hz = settings.frame_rate_hz
        identity = {
            **self._identity(name, model.weights_id, settings.lm_layer),
            "align": settings.align,
            "frame_rate_hz": rate_hz,
            "transcripts_sha256": sha256_of(path),
        }
        read = functools.cache(read_transcripts)

        def features(segments: Sequence[int]) -> list[NDArray[np.float32]]:
            found: list[NDArray[np.float32]] = []
            for start in range(0, len(segments), settings.batch_size):
                batch = segments[start : start + settings.batch_size]
                found += self._text_batch(model, batch, [read(path)[segment] for segment in batch])
            return found

        description = {
            "kind": "lm", "model": name, "width": model.width, "frame_rate_hz": rate_hz, "layers": settings.lm_layer,
            "aligned": settings.align,
        }  # fmt: skip
        return self._store(description, identity, features, "language model")

    def _identity(self, model: str, weights: str, layer: str) -> dict[str, Any]:
        return {
            "model": model, "weights": weights, "layer": layer, "fingerprint": self.data.fingerprint,
            "segments_per_shard": self.per_shard,
        }  # fmt: skip

    def _recognise(
        self, recogniser: Recogniser, given: GivenTranscripts, identity: Mapping[str, Any]
    ) -> dict[int, Transcription]:
        folder = self.data.folder / WORK / "asr"
        make_folder(folder)

        def transcribe(segments: Sequence[int]) -> list[Transcription]:
            return self._in_batches(segments, not recogniser.pads, recogniser.transcribe)

        segments = segments_to_recognise(self.data, given)
        return recognise_segments(segments, transcribe, folder, identity, self._stage("recogniser"))

    def _text_batch(
        self, model: LanguageModel, segments: Sequence[int], transcripts: Sequence[Transcript]
    ) -> list[NDArray[np.float32]]:
        if not self.settings.align:
            return model.padded([each.text for each in transcripts], [each.num_frames for each in transcripts])
        rate_hz = self.settings.frame_rate_hz
        durations_s = [float(self.data.num_samples[segment]) / self.data.sample_rate for segment in segments]
        frames = [math.ceil(round(duration_s * rate_hz, 6)) for duration_s in durations_s]
        return model.aligned([each.words for each in transcripts], frames, rate_hz)

    def _store(
        self, description: Mapping[str, Any], identity: Mapping[str, Any], features: store.Features, stage: str
    ) -> TeacherInfo:
        """Compute all features, shard by shard, and describe them; nothing where the same features are stored."""
        folder = self.data.folder / TEACHERS / str(description["kind"])
        if store.is_done(folder, identity, self.force):
            return TeacherInfo.read(folder)
        sizes = store.write_features(
            folder, self.data.num_segments, description["width"], features, self._stage(stage), self.per_shard
        )
        info = TeacherInfo(
            **description,
            fingerprint=self.data.fingerprint,
            segments_per_shard=self.per_shard,
            size_bytes=sizes,
            settings=identity,
            versions=package_versions(),
        )
        info.write(folder)
        store.remove_temporary_files(folder)
        return info

    def _in_batches(
        self,
        segments: Sequence[int],
        same_length: bool,
        run: Callable[[Sequence[NDArray[np.float32]]], list[Result]],
    ) -> list[Result]:
        """Run segments in batches of similar lengths; return the results in the order of `segments`.

        Args:
            segments: their ids.
            same_length: whether all segments of a batch must have the same length.
            run: called with the waveforms (samples,) of a batch.
        """
        lengths = [int(self.data.num_samples[segment]) for segment in segments]
        results: dict[int, Result] = {}
        for batch in _batches(lengths, self.settings.batch_size, same_length):
            found = run([self.data.waveform(segments[index]) for index in batch])
            results.update(zip(batch, found, strict=True))
        return [results[index] for index in range(len(segments))]

    def _stage(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self.report(name, done, total)


def _batches(lengths: Sequence[int], size: int, same_length: bool) -> Iterator[list[int]]:
    """Yield batches of at most `size` indices into `lengths`, shortest first."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) == size or (same_length and lengths[index] != lengths[batch[0]])):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _hash(given: GivenTranscripts) -> str | None:
    if not given:
        return None
    plain = {name: [[span.text, span.start_s, span.end_s] for span in spans] for name, spans in given.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that features depend on."""
    import torch

    return {
        "transformers": str(transformers(TEACHING).__version__),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
