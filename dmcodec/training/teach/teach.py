"""Teaches a data folder: transcripts, then the features of a speech and a language model, each resumable."""

from __future__ import annotations

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
from dmcodec.pretrained.loading import pick_device, transformers
from dmcodec.pretrained.recognisers import load_recogniser
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.data.features import TeacherInfo
from dmcodec.training.data.given_transcripts import Given, find, read_given
from dmcodec.training.data.layout import META, TEACHERS, sha256_of

from . import store
from .language_model import LanguageModel
from .speech_model import SpeechModel
from .transcripts import (
    SegmentSources,
    Transcript,
    made_with,
    merge,
    read_transcripts,
    recognise,
    transcripts_path,
    write_transcripts,
)

Report = Callable[[str, int, int], None]
Result = TypeVar("Result")
WORK = ".teach"


@dataclass(frozen=True)
class TeachSettings:
    """Which teachers, and how.

    Attributes:
        sm: speech model, or None.
        lm: language model, or None.
        asr: recogniser, or None where all transcripts are given.
        sm_layer: "avg", "last", or the number of a hidden state.
        lm_layer: likewise.
        align: spreads the LM's tokens over their words' times, instead of the paper's form.
        language: of the speech, for multilingual Whisper recognisers.
        asr_window_s: of Whisper recognisers; None is their own 30 s.
        frame_rate_hz: of aligned LM features.
        batch_size: segments at a time.
        device: None picks cuda where there is one.
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
    given: dict[str, list[Given]] | None = None,
    force: bool = False,
    report: Report | None = None,
    per_shard: int = store.SEGMENTS_PER_SHARD,
) -> dict[str, TeacherInfo]:
    """Stores transcripts and features in a data folder, or goes on where an interrupted call stopped.

    Args:
        folder: prepared data.
        settings: teachers.
        given: transcripts by source name; None takes those that the data were prepared with.
        force: teaches again what was taught otherwise.
        report: called with (stage, done, total).
        per_shard: segments in a shard of features.

    Returns:
        Descriptions of the features, by kind.

    Raises:
        DataError: not a data folder, or altered audio.
        TeacherError: a teacher can't be loaded, fails, or gives what can't be stored.
        OutputExistsError: the folder was taught with other settings, and `force` is false.
    """
    data = PreparedData.open_untaught(folder)
    transformers()
    data.verify()
    show = report or (lambda _stage, _done, _total: None)
    device = pick_device(settings.device, settings.threads)
    taught: dict[str, TeacherInfo] = {}
    if settings.sm:
        taught["sm"] = _teach_sm(data, settings.sm, settings, device, force, show, per_shard)
    if settings.lm:
        pieces = read_given(folder) if given is None else given
        rate_hz = _transcribe(data, settings, pieces, device, force, show)
        taught["lm"] = _teach_lm(data, settings.lm, settings, rate_hz, device, force, show, per_shard)
    return taught


def _teach_sm(
    data: PreparedData, name: str, settings: TeachSettings, device: str, force: bool, show: Report, per_shard: int
) -> TeacherInfo:
    model = SpeechModel(name, settings.sm_layer, device, data.sample_rate)
    folder = data.folder / TEACHERS / "sm"
    identity = {**_identity(data, name, model.weights_id, settings.sm_layer), "segments_per_shard": per_shard}
    if store.is_done(folder, identity, force):
        return TeacherInfo.read(folder)

    def features(segments: Sequence[int]) -> list[NDArray[np.float32]]:
        return in_batches(data, segments, settings.batch_size, not model.pads, model.features)

    made = _Made("sm", name, model.width, model.frame_rate_hz, settings.sm_layer, False, identity)
    return _store(data, folder, made, features, _stage(show, "speech model"), per_shard)


@dataclass(frozen=True)
class _Made:
    """What features are of, as in `TeacherInfo`."""

    kind: str
    model: str
    width: int
    frame_rate_hz: float
    layers: str
    aligned: bool
    settings: Mapping[str, Any]


def _store(
    data: PreparedData,
    folder: Path,
    made: _Made,
    features: Callable[[Sequence[int]], list[NDArray[np.float32]]],
    stage: Callable[[int, int], None],
    per_shard: int,
) -> TeacherInfo:
    """Makes all features, shard by shard, and describes them."""
    sizes = store.write_features(folder, data.num_segments, made.width, features, stage, per_shard)
    info = TeacherInfo(
        **vars(made), fingerprint=data.fingerprint, segments_per_shard=per_shard, size_bytes=sizes, versions=versions()
    )
    info.write(folder)
    store.clean(folder)
    return info


def _transcribe(
    data: PreparedData, settings: TeachSettings, given: dict[str, list[Given]], device: str, force: bool, show: Report
) -> float:
    """Makes transcripts.parquet where it isn't there yet; returns the frame rate that the paper's form pads to."""
    recogniser = None
    identity: dict[str, Any] = {"fingerprint": data.fingerprint, "given": _hash(given)}
    if settings.asr:
        recogniser = load_recogniser(settings.asr, device, data.sample_rate, settings.language, settings.asr_window_s)
        identity |= {"asr": settings.asr, "asr_weights": recogniser.weights_id, "language": settings.language}
        identity |= {"asr_window_s": settings.asr_window_s}
    rate_hz = recogniser.frame_rate_hz if recogniser else 50.0
    path = transcripts_path(data)
    if made_with(path) == json.dumps(identity, sort_keys=True):
        return rate_hz
    if (data.folder / TEACHERS / "lm" / META).exists() and not force:
        raise OutputExistsError(
            f"{path}: the language model was taught with other transcripts or another recogniser; --force redoes it"
        )
    heard = {}
    if recogniser:
        work = data.folder / WORK / "asr"
        make_folder(work)
        transcribe = recogniser.transcribe
        same_length = not recogniser.pads

        def batch(segments: Sequence[int]) -> list[Any]:
            return in_batches(data, segments, settings.batch_size, same_length, transcribe)

        wanted = _to_hear(data, given)
        heard = recognise(wanted, batch, work, identity, _stage(show, "recogniser"))
    write_transcripts(path, merge(data, given, heard), identity)
    shutil.rmtree(data.folder / WORK, ignore_errors=True)
    return rate_hz


def _to_hear(data: PreparedData, given: dict[str, list[Given]]) -> list[int]:
    """Segments whose text or times are not given."""
    sources = SegmentSources.of(data)
    pieces = {source: find(given, source) for source in sources.segments}
    known = {source for source, found in pieces.items() if found and all(piece.start_s is not None for piece in found)}
    return [segment for segment, source in enumerate(sources.source) if source not in known]


def _teach_lm(
    data: PreparedData,
    name: str,
    settings: TeachSettings,
    rate_hz: float,
    device: str,
    force: bool,
    show: Report,
    per_shard: int,
) -> TeacherInfo:
    model = LanguageModel(name, settings.lm_layer, device)
    path = transcripts_path(data)
    folder = data.folder / TEACHERS / "lm"
    if settings.align:
        rate_hz = settings.frame_rate_hz
    identity = {
        **_identity(data, name, model.weights_id, settings.lm_layer),
        "segments_per_shard": per_shard,
        "align": settings.align,
        "frame_rate_hz": rate_hz,
        "transcripts_sha256": sha256_of(path),
    }
    if store.is_done(folder, identity, force):
        return TeacherInfo.read(folder)
    transcripts = read_transcripts(path)

    def features(segments: Sequence[int]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(segments), settings.batch_size):
            chosen = segments[start : start + settings.batch_size]
            found += _lm_batch(model, [transcripts[each] for each in chosen], _durations(data, chosen), settings)
        return found

    made = _Made("lm", name, model.width, rate_hz, settings.lm_layer, settings.align, identity)
    return _store(data, folder, made, features, _stage(show, "language model"), per_shard)


def _lm_batch(
    model: LanguageModel, transcripts: Sequence[Transcript], durations_s: Sequence[float], settings: TeachSettings
) -> list[NDArray[np.float32]]:
    if not settings.align:
        return model.padded([each.text for each in transcripts], [each.num_frames for each in transcripts])
    frames = [math.ceil(round(duration_s * settings.frame_rate_hz, 6)) for duration_s in durations_s]
    return model.aligned([each.words for each in transcripts], frames, settings.frame_rate_hz)


def _durations(data: PreparedData, segments: Sequence[int]) -> list[float]:
    return [float(data.num_samples[segment]) / data.sample_rate for segment in segments]


def in_batches(
    data: PreparedData,
    segments: Sequence[int],
    batch_size: int,
    same_length: bool,
    run: Callable[[Sequence[NDArray[np.float32]]], list[Result]],
) -> list[Result]:
    """Runs segments in batches of like length, and gives the results in the segments' order.

    Args:
        data: the segments are of.
        segments: their ids.
        batch_size: most segments in a batch.
        same_length: batches hold one length only.
        run: on waveforms (samples,) each.
    """
    order = sorted(range(len(segments)), key=lambda index: int(data.num_samples[segments[index]]))
    results: dict[int, Result] = {}
    for batch in _groups(order, [int(data.num_samples[segment]) for segment in segments], batch_size, same_length):
        found = run([data.waveform(segments[index]) for index in batch])
        results.update(zip(batch, found, strict=True))
    return [results[index] for index in range(len(segments))]


def _groups(order: Sequence[int], lengths: Sequence[int], size: int, same_length: bool) -> Iterator[list[int]]:
    group: list[int] = []
    for index in order:
        if group and (len(group) == size or (same_length and lengths[index] != lengths[group[0]])):
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _identity(data: PreparedData, model: str, weights: str, layer: str) -> dict[str, Any]:
    return {"model": model, "weights": weights, "layer": layer, "fingerprint": data.fingerprint}


def _stage(show: Report, name: str) -> Callable[[int, int], None]:
    return lambda done, total: show(name, done, total)


def _hash(given: Mapping[str, Sequence[Given]]) -> str | None:
    if not given:
        return None
    plain = {name: [[piece.text, piece.start_s, piece.end_s] for piece in pieces] for name, pieces in given.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]


def versions() -> dict[str, str]:
    """Of the packages that features depend on."""
    import torch

    return {"transformers": str(transformers().__version__), "torch": str(torch.__version__), "numpy": np.__version__}
