"""Storage of recordings as segments: buffered, cut, and written into shards, so that an interrupted run can resume."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform, to_pcm16
from dmcodec.audio_sources import Source
from dmcodec.errors import OutputError

from .layout import AUDIO, Shard, Skipped, shard_name
from .storage import read_json, save_array, sha256_of, write_json

WORK = ".prepare"
SHARD_SAMPLES = 1 << 26  # 128 MiB, 70 minutes at 16 kHz
BUFFER_BYTES = 32 << 20  # 17 minutes at 16 kHz
Row = tuple[int, int, int, str, float, str]  # shard, offset_samples, num_samples, source, start_s, speaker
Text = tuple[str, str]  # source, text


class RecordingBuffer:
    """A recording, decoded completely before any of it is stored; int16, in memory or on disk where it is long.

    Attributes:
        num_samples: so far.
        peak: largest magnitude so far; full scale is 1.
    """

    def __init__(self, folder: Path) -> None:
        """Make an empty buffer. A recording over 32 MiB goes to an unnamed temporary file in `folder`."""
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(max_size=BUFFER_BYTES, dir=str(folder))  # noqa: SIM115 - closed on exit
        self.num_samples = 0
        self.peak = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free memory and disk."""
        self._file.close()

    def extend(self, blocks: Iterable[Waveform]) -> None:
        """Append blocks (samples,) of float32; values beyond [-1, 1] are clipped.

        Raises:
            OutputError: the disk is full.
        """
        for block in blocks:
            if not len(block):
                continue
            samples = to_pcm16(block).astype("<i2")
            self.peak = max(self.peak, float(np.abs(samples.astype(np.int32)).max()) / 32768)
            self.num_samples += len(samples)
            try:
                self._file.write(samples.tobytes())
            except OSError as error:
                raise OutputError(
                    f"{self._folder}: can't be written ({error.strerror or error}); check the disk and the rights"
                ) from error

    def read(self, start: int, length: int) -> NDArray[np.int16]:
        """Return (length,) samples from `start` on."""
        self._file.seek(2 * start)
        return np.frombuffer(self._file.read(2 * length), "<i2").astype(np.int16)


def cut_segments(num_samples: int, segment_samples: int) -> list[tuple[int, int]]:
    """Return the segments of a recording, which cover every sample.

    A recording longer than a segment gives full segments only: the last one is moved back to end where the recording
    ends, and overlaps the one before. A shorter recording is one segment of its own length.

    Returns:
        (start, length) of each segment, in samples, in order.
    """
    if num_samples <= segment_samples:
        return [(0, num_samples)] if num_samples > 0 else []
    starts = list(range(0, num_samples - segment_samples + 1, segment_samples))
    if starts[-1] + segment_samples < num_samples:
        starts.append(num_samples - segment_samples)
    return [(start, segment_samples) for start in starts]


def start_or_resume(folder: Path, identity: dict[str, Any]) -> bool:
    """Start a run in `folder`, or find an interrupted one.

    Returns:
        Whether the run is new, or has the same identity; False: it was started from other audio or options.
    """
    path = folder / WORK / "run.json"
    if not path.exists():
        if any((folder / WORK).glob("[0-9]*.json")):  # dmcodec 0.1.0 wrote the identity elsewhere
            return False
        write_json(path, identity)
        return True
    return json.dumps(read_json(path), sort_keys=True) == json.dumps(identity, sort_keys=True)


@dataclass
class Journal:
    """The sources stored or skipped so far."""

    next_source: int = 0
    shards: list[Shard] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    source_samples: int = 0

    def add(self, other: Journal) -> None:
        """Append the journal of the sources that follow."""
        self.next_source = other.next_source
        self.shards += other.shards
        self.rows += other.rows
        self.skipped += other.skipped
        self.texts += other.texts
        self.source_samples += other.source_samples

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Journal:
        """Make a journal from the output of `asdict`."""
        return cls(
            value["next_source"],
            [Shard(**each) for each in value["shards"]],
            [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in value["rows"]],
            [Skipped(**each) for each in value["skipped"]],
            [(source, text) for source, text in value["texts"]],
            value["source_samples"],
        )


class ShardWriter:
    """Writes recordings, in order, into shards. A shard ends where a recording ends, unless one recording is longer.

    A journal entry is written when all recordings up to the end of a shard are stored. A resumed run repeats what came
    after the last entry.

    Attributes:
        done: the journal of what is stored permanently.
    """

    def __init__(self, folder: Path, sample_rate: int, segment_samples: int, shard_samples: int) -> None:
        """Start after the last entry of the journal in `folder`, if there is one."""
        self._folder, self._rate = folder, sample_rate
        self._segment_samples = segment_samples
        self._shard_samples = max(shard_samples, 2 * segment_samples)
        self.done = Journal()
        for entry in sorted((folder / WORK).glob("[0-9]*.json")):
            self.done.add(Journal.from_dict(read_json(entry)))
        self._new = Journal(self.done.next_source)
        self._chunks: list[NDArray[np.int16]] = []
        self._buffered = 0

    def skip(self, name: str, reason: str) -> None:
        """Note a recording that is not stored."""
        self._new.skipped.append(Skipped(name, reason))
        self._new.next_source += 1

    def add(self, source: Source, recording: RecordingBuffer) -> None:
        """Store a recording and its segments."""
        if self._buffered and self._buffered + recording.num_samples > self._shard_samples:
            self._close_shard()
            self._commit()
        parts = list(self._parts(recording.num_samples))
        for index, (start, length, segments) in enumerate(parts):
            if index:
                self._close_shard()
            shard = len(self.done.shards) + len(self._new.shards)
            for first, size in segments:
                offset = self._buffered + first - start
                self._new.rows.append((shard, offset, size, source.name, first / self._rate, source.speaker))
            self._chunks.append(recording.read(start, length))
            self._buffered += length
        if source.text is not None:
            self._new.texts.append((source.name, source.text))
        self._new.source_samples += recording.num_samples
        self._new.next_source += 1
        if len(parts) > 1:  # otherwise the journal would name only some of a recording's shards
            self._close_shard()
            self._commit()

    def finish(self) -> Journal:
        """Store the rest, and return the complete journal."""
        if self._buffered:
            self._close_shard()
        self._commit()
        return self.done

    def _parts(self, num_samples: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Yield parts of a recording that fit in a shard: (start, length, segments)."""
        segments = cut_segments(num_samples, self._segment_samples)
        part: list[tuple[int, int]] = []
        for index, (start, length) in enumerate(segments):
            last = index == len(segments) - 1  # it overlaps the one before, and stays with it
            if part and not last and start + length - part[0][0] > self._shard_samples:
                yield part[0][0], sum(part[-1]) - part[0][0], part
                part = []
            part.append((start, length))
        yield part[0][0], sum(part[-1]) - part[0][0], part

    def _close_shard(self) -> None:
        name = shard_name(len(self.done.shards) + len(self._new.shards))
        path = self._folder / AUDIO / name
        save_array(path, np.concatenate(self._chunks))
        self._new.shards.append(Shard(name, self._buffered, path.stat().st_size, sha256_of(path)))
        self._chunks, self._buffered = [], 0

    def _commit(self) -> None:
        entry = self._folder / WORK / f"{self._new.next_source:09d}.json"
        if self._new.next_source > self.done.next_source:
            write_json(entry, asdict(self._new))
        self.done.add(self._new)
        self._new = Journal(self.done.next_source)
