"""Makes a data folder: recordings to segments of 16-bit audio in shards, a split, and a manifest."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.audio_sources import Source, Sources
from dmcodec.errors import ArgumentError, AudioError, DataError, OutputError, OutputExistsError
from dmcodec.files import make_folder

from .given_transcripts import GIVEN, Given, write_given
from .layout import (
    AUDIO,
    MANIFEST,
    SEGMENTS,
    TRAIN,
    VALIDATION,
    Manifest,
    arrow,
    fingerprint_of,
    segments_schema,
    sha256_of,
    write_table,
)
from .shards import SHARD_SAMPLES, WORK, Journal, ShardWriter, Spool, begin, split_keys

SPLIT_BY = ("file", "speaker")
OF_SPLIT = ("split_by", "validation", "seed")  # may differ between an interrupted run and the one that goes on
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PrepareSettings:
    """How recordings become segments.

    Attributes:
        sample_rate: of the segments, in Hz.
        segment_s: length of a full segment.
        min_duration_s: recordings shorter than this are skipped.
        silence_dbfs: recordings whose peak is below this are skipped.
        split_by: "file" or "speaker".
        validation: share of files or speakers that validate.
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
    transcripts: dict[str, list[Given]] | None = None,
    threads: int = 1,
    strict: bool = False,
    force: bool = False,
    report: Report | None = None,
    shard_samples: int = SHARD_SAMPLES,
) -> Manifest:
    """Prepares a data folder, or goes on where an interrupted run of the same call stopped.

    Args:
        sources: the recordings.
        folder: to make.
        settings: how.
        transcripts: given ones, by source name.
        threads: that read and resample.
        strict: makes an error of the first recording that can't be used, instead of skipping it.
        force: begins again whatever is in the folder.
        report: called with (stage, done, total).
        shard_samples: most samples in a shard.

    Returns:
        The manifest; where the folder was complete already, and made by the same call, the one that is there.

    Raises:
        OutputExistsError: the folder holds something else, or was prepared otherwise.
        DataError: nothing could be used, or the split can't be made.
        AudioError: in strict mode.
    """
    identity = {"sources": sources.identity, "shard_samples": shard_samples, **asdict(settings)}
    of_audio = {name: value for name, value in identity.items() if name not in OF_SPLIT}
    if (folder / MANIFEST).exists() and not force:
        found = Manifest.read(folder)
        if dict(found.settings) == identity:
            return found
        raise OutputExistsError(
            f"{folder}: was prepared from other audio or with other options; --force prepares again"
        )
    _start(folder, of_audio, force)
    writer = ShardWriter(folder, settings.sample_rate, settings.segment_samples, shard_samples)
    for index, (source, spool) in _decoded(sources, writer.done.next_source, folder / WORK, settings, threads):
        if isinstance(spool, AudioError):
            if strict:
                raise spool
            writer.skip(source.name, str(spool))
        else:
            with spool:
                writer.add(source, spool)
        if report:
            report("files", index + 1, sources.count)
    journal = writer.finish()
    return _finish(folder, journal, settings, identity, transcripts)


def _start(folder: Path, identity: dict[str, Any], force: bool) -> None:
    ours = any((folder / name).exists() for name in (MANIFEST, WORK))
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not ours):
        raise OutputExistsError(f"{folder}: exists and holds something else; name a new folder")
    if force and folder.is_dir():
        (folder / MANIFEST).unlink(missing_ok=True)  # first: without it the folder isn't taken for whole
        for name in (WORK, AUDIO):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in (SEGMENTS, GIVEN):
            (folder / name).unlink(missing_ok=True)
    make_folder(folder / WORK)
    make_folder(folder / AUDIO)
    if not begin(folder / WORK, identity):
        raise OutputExistsError(
            f"{folder}: holds an unfinished run of other audio or options; give them again, or --force to start over"
        )


def _decoded(
    sources: Sources, start: int, work: Path, settings: PrepareSettings, threads: int
) -> Iterator[tuple[int, tuple[Source, Spool | AudioError]]]:
    """Recordings from `start` on, in order; some are read ahead."""
    waiting: deque[Future[tuple[Source, Spool | AudioError]]] = deque()
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


def _decode(sources: Sources, index: int, work: Path, settings: PrepareSettings) -> tuple[Source, Spool | AudioError]:
    source = sources.get(index)
    spool = Spool(work)
    try:
        spool.extend(source.read(settings.sample_rate))
        _check(source, spool, settings)
    except AudioError as error:
        spool.close()
        return source, error
    except BaseException:
        spool.close()
        raise
    return source, spool


def _check(source: Source, spool: Spool, settings: PrepareSettings) -> None:
    duration_s = spool.num_samples / settings.sample_rate
    if duration_s < settings.min_duration_s:
        raise AudioError(f"{source.name}: too short, {duration_s:.3f} s of at least {settings.min_duration_s} s")
    if spool.peak < 10 ** (settings.silence_dbfs / 20):
        raise AudioError(f"{source.name}: silent, its peak is below {settings.silence_dbfs} dBFS")


def _finish(
    folder: Path,
    journal: Journal,
    settings: PrepareSettings,
    identity: dict[str, Any],
    transcripts: dict[str, list[Given]] | None,
) -> Manifest:
    if not journal.rows:
        first = f"; the first: {journal.skipped[0].reason}" if journal.skipped else ""
        raise DataError(f"{folder}: none of {len(journal.skipped)} recordings can be used{first}")
    shard, offset, num_samples, source, start_s, speaker = zip(*journal.rows, strict=True)
    if settings.split_by == "speaker" and not all(speaker):
        raise ArgumentError("--split-by speaker needs to know the speakers; see --speaker-from and --speaker-column")
    keys = speaker if settings.split_by == "speaker" else source
    sides = split_keys(set(keys), settings.validation, settings.seed)
    split = [sides[key] for key in keys]
    columns = [shard, offset, num_samples, source, start_s, speaker, split]
    write_table(folder / SEGMENTS, arrow().table([list(column) for column in columns], schema=segments_schema()))
    write_given(folder, _given(journal, transcripts))
    lengths = np.array(num_samples, np.int32)
    totals = {
        "files": len(set(source)),
        "skipped_files": len(journal.skipped),
        "speakers": len(set(filter(None, speaker))),
        "segments": len(lengths),
        **{f"{side}_segments": split.count(side) for side in (TRAIN, VALIDATION)},
        "audio_s": journal.source_samples / settings.sample_rate,
        "segments_s": int(lengths.sum()) / settings.sample_rate,
    }
    manifest = Manifest(
        sample_rate=settings.sample_rate,
        segment_samples=settings.segment_samples,
        fingerprint=fingerprint_of(
            settings.sample_rate, journal.shards, np.array(shard, np.int32), np.array(offset, np.int64), lengths
        ),
        segments_sha256=sha256_of(folder / SEGMENTS),
        shards=tuple(journal.shards),
        split={"by": settings.split_by, "seed": settings.seed, "validation": settings.validation},
        totals=totals,
        skipped=tuple(journal.skipped),
        settings=identity,
    )
    manifest.write(folder)
    try:
        shutil.rmtree(folder / WORK)
    except OSError as error:
        raise OutputError(f"{folder / WORK}: can't be removed ({error.strerror or error})") from error
    return manifest


def _given(journal: Journal, transcripts: dict[str, list[Given]] | None) -> dict[str, list[Given]]:
    given = {name: [Given(text)] for name, text in journal.texts}
    return given | (transcripts or {})
