"""Preparation of a data folder: recordings as segments of 16-bit audio in shards, a split, and a manifest."""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.audio_sources import Source, Sources
from dmcodec.errors import ArgumentError, AudioError, DataError, OutputError, OutputExistsError
from dmcodec.files import make_folder
from dmcodec.transcripts import TextSpan

from .given_transcripts import GivenTranscripts, match_transcripts, write_given_transcripts
from .layout import (
    AUDIO,
    GIVEN_TRANSCRIPTS,
    MANIFEST,
    SEGMENTS,
    TRAIN,
    VALIDATION,
    Manifest,
    fingerprint_of,
    segments_schema,
)
from .shards import SHARD_SAMPLES, WORK, Journal, RecordingBuffer, ShardWriter, start_or_resume
from .storage import arrow, sha256_of, write_table

SPLIT_BY = ("file", "speaker")
SPLIT_OPTIONS = ("split_by", "validation", "seed")  # may differ between an interrupted run and the resumed one
Report = Callable[[str, int, int], None]
Decoded = tuple[Source, RecordingBuffer | AudioError]


@dataclass(frozen=True)
class PrepareSettings:
    """How recordings become segments, and how these are split.

    Attributes:
        sample_rate: of the segments, in Hz.
        segment_s: length of a full segment.
        min_duration_s: recordings shorter than this are skipped.
        silence_dbfs: recordings whose peak is below this are skipped.
        split_by: "file" or "speaker".
        validation: share of files or speakers in the validation split.
        seed: of the split.
    """

    sample_rate: int = 16000
    segment_s: float = 3.0
    min_duration_s: float = 0.5
    silence_dbfs: float = -60.0
    split_by: str = "file"
    validation: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split_by not in SPLIT_BY:
            raise ArgumentError(f"--split-by {self.split_by!r} is not known; use {' or '.join(SPLIT_BY)}")
        if not 0.1 <= self.segment_s <= 600:
            raise ArgumentError(f"--segment {self.segment_s} must be from 0.1 to 600 s")
        if not 0.05 <= self.min_duration_s <= self.segment_s:
            raise ArgumentError(f"--min-duration {self.min_duration_s} must be from 0.05 s to the segment's length")
        if not 0 <= self.validation < 1:
            raise ArgumentError(f"--validation {self.validation} must be from 0 to below 1")
        if not self.silence_dbfs < 0:
            raise ArgumentError(f"--silence {self.silence_dbfs} must be below 0 dBFS")

    @property
    def segment_samples(self) -> int:
        """Length of a full segment."""
        return round(self.segment_s * self.sample_rate)


def prepare(
    sources: Sources,
    folder: Path,
    settings: PrepareSettings,
    transcripts: GivenTranscripts | None = None,
    threads: int = 1,
    strict: bool = False,
    force: bool = False,
    report: Report | None = None,
    shard_samples: int = SHARD_SAMPLES,
) -> Manifest:
    """Prepare a data folder, or resume an interrupted run of the same call.

    Args:
        sources: the recordings.
        folder: to make.
        settings: of segments and split.
        transcripts: that came with the audio, by source name (`match_transcripts`).
        threads: that read and resample.
        strict: raise the error of the first unusable recording, instead of skipping the recording.
        force: replace the data in the folder.
        report: called with (stage, done, total).
        shard_samples: maximal number of samples in a shard.

    Returns:
        The manifest. A folder that the same call completed before is left as it is.

    Raises:
        OutputExistsError: the folder holds other files, or was prepared from other audio or with other options.
        DataError: no recording is usable, or the split is impossible.
        AudioError: a recording is unusable, in strict mode.
    """
    identity = {"sources": sources.identity, "shard_samples": shard_samples, **asdict(settings)}
    audio_identity = {name: value for name, value in identity.items() if name not in SPLIT_OPTIONS}
    if (folder / MANIFEST).exists() and not force:
        found = Manifest.read(folder)
        if dict(found.settings) == identity:
            return found
        raise OutputExistsError(
            f"{folder}: was prepared from other audio or with other options; --force prepares again"
        )
    _start(folder, audio_identity, force)
    writer = ShardWriter(folder, settings.sample_rate, settings.segment_samples, shard_samples)
    for index, (source, recording) in _decoded(sources, writer.done.next_source, folder / WORK, settings, threads):
        if isinstance(recording, AudioError):
            if strict:
                raise recording
            writer.skip(source.name, str(recording))
        else:
            with recording:
                writer.add(source, recording)
        if report:
            report("files", index + 1, sources.count)
    journal = writer.finish()
    return _finish(folder, journal, settings, identity, transcripts)


def _start(folder: Path, identity: dict[str, Any], force: bool) -> None:
    is_data_folder = any((folder / name).exists() for name in (MANIFEST, WORK))
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not is_data_folder):
        raise OutputExistsError(f"{folder}: exists and holds something else; name a new folder")
    if force and folder.is_dir():
        (folder / MANIFEST).unlink(missing_ok=True)  # first: without it the folder counts as incomplete
        for name in (WORK, AUDIO):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in (SEGMENTS, GIVEN_TRANSCRIPTS):
            (folder / name).unlink(missing_ok=True)
    make_folder(folder / WORK)
    make_folder(folder / AUDIO)
    if not start_or_resume(folder, identity):
        raise OutputExistsError(
            f"{folder}: holds an unfinished run with other audio or options; "
            "repeat that call, or use --force to start again"
        )


def _decoded(
    sources: Sources, start: int, work: Path, settings: PrepareSettings, threads: int
) -> Iterator[tuple[int, Decoded]]:
    """Yield the recordings from `start` on, in order, by index; some are read ahead."""
    waiting: deque[Future[Decoded]] = deque()
    following = start
    with ThreadPoolExecutor(threads) as pool:
        try:
            for index in range(start, sources.count):
                while following < sources.count and len(waiting) < 2 * threads:
                    waiting.append(pool.submit(_decode, sources, following, work, settings))
                    following += 1
                yield index, waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode(sources: Sources, index: int, work: Path, settings: PrepareSettings) -> Decoded:
    source = sources.get(index)
    recording = RecordingBuffer(work)
    try:
        recording.extend(source.read(settings.sample_rate))
        _check(source, recording, settings)
    except AudioError as error:
        recording.close()
        return source, error
    except BaseException:
        recording.close()
        raise
    return source, recording


def _check(source: Source, recording: RecordingBuffer, settings: PrepareSettings) -> None:
    duration_s = recording.num_samples / settings.sample_rate
    if duration_s < settings.min_duration_s:
        raise AudioError(f"{source.name}: too short, {duration_s:.3f} s of at least {settings.min_duration_s} s")
    if recording.peak < 10 ** (settings.silence_dbfs / 20):
        raise AudioError(f"{source.name}: silent, its peak is below {settings.silence_dbfs} dBFS")


def _finish(
    folder: Path,
    journal: Journal,
    settings: PrepareSettings,
    identity: dict[str, Any],
    transcripts: GivenTranscripts | None,
) -> Manifest:
    if not journal.rows:
        first = f"; the first: {journal.skipped[0].reason}" if journal.skipped else ""
        raise DataError(f"{folder}: none of {len(journal.skipped)} recordings can be used{first}")
    shard, offset, num_samples, source, start_s, speaker = zip(*journal.rows, strict=True)
    if settings.split_by == "speaker" and not all(speaker):
        raise ArgumentError("--split-by speaker needs the speakers; name them by --speaker-from or --speaker-column")
    keys = speaker if settings.split_by == "speaker" else source
    splits = assign_splits(set(keys), settings.validation, settings.seed)
    split = [splits[key] for key in keys]
    columns = [shard, offset, num_samples, source, start_s, speaker, split]
    write_table(folder / SEGMENTS, arrow().table([list(column) for column in columns], schema=segments_schema()))
    given = match_transcripts(transcripts or {}, source, "--transcripts")
    write_given_transcripts(folder, {name: [TextSpan(text)] for name, text in journal.texts} | given)
    lengths = np.array(num_samples, np.int32)
    manifest = Manifest(
        sample_rate=settings.sample_rate,
        segment_samples=settings.segment_samples,
        fingerprint=fingerprint_of(
            settings.sample_rate, journal.shards, np.array(shard, np.int32), np.array(offset, np.int64), lengths
        ),
        segments_sha256=sha256_of(folder / SEGMENTS),
        shards=tuple(journal.shards),
        split={"by": settings.split_by, "seed": settings.seed, "validation": settings.validation},
        totals=_totals(journal, split, settings.sample_rate),
        skipped=tuple(journal.skipped),
        settings=identity,
    )
    manifest.write(folder)
    try:
        shutil.rmtree(folder / WORK)
    except OSError as error:
        raise OutputError(f"{folder / WORK}: can't be removed ({error.strerror or error})") from error
    return manifest


def _totals(journal: Journal, split: list[str], sample_rate: int) -> dict[str, Any]:
    """Return counts and durations for the manifest."""
    _, _, num_samples, source, _, speaker = zip(*journal.rows, strict=True)
    return {
        "files": len(set(source)),
        "skipped_files": len(journal.skipped),
        "speakers": len(set(filter(None, speaker))),
        "segments": len(num_samples),
        **{f"{name}_segments": split.count(name) for name in (TRAIN, VALIDATION)},
        "audio_s": journal.source_samples / sample_rate,
        "segments_s": sum(num_samples) / sample_rate,
    }


def assign_splits(keys: Collection[str], validation: float, seed: int) -> dict[str, str]:
    """Assign each key (a speaker or a file) to a split by its hash, so that added keys leave the others where they are.

    Where the hashes leave one split empty, the key nearest to the threshold changes its split.

    Args:
        keys: of the sources.
        validation: share of the keys in the validation split, from 0 (none) to below 1.
        seed: of the hash.

    Raises:
        DataError: there is only one key, and both splits need one.
    """
    positions = {key: _position(key, seed) for key in keys}
    chosen = {key for key, position in positions.items() if position < validation}
    if validation > 0 and len(positions) < 2:
        only = next(iter(positions), "")
        raise DataError(
            f"{only!r} alone can't be split into {TRAIN} and {VALIDATION}; "
            "use --validation 0, --split-by file, or more audio"
        )
    if validation > 0 and not chosen:
        chosen = {min(positions, key=positions.__getitem__)}
    if len(chosen) == len(positions):
        chosen.discard(max(positions, key=positions.__getitem__))
    return {key: VALIDATION if key in chosen else TRAIN for key in positions}


def _position(key: str, seed: int) -> float:
    """Return a position from 0 to below 1, the same for the same key and seed."""
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
