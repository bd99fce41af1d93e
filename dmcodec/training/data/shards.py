"""Writes audio into shards, and a journal beside them, from which an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.audio_sources import Source
from dmcodec.errors import DataError, OutputError

from .layout import AUDIO, TRAIN, VALIDATION, Shard, Skipped, read_json, save_array, sha256_of, shard_name, write_json

# FOLDED: Where a source is cut into segments, and which split a source goes to.
# FOLDED: One recording, decoded whole before any of it is kept: in memory, or on disk where it is long.


WORK = ".prepare"
SHARD_SAMPLES = 1 << 26  # 128 MiB, 70 minutes at 16 kHz
Row = tuple[int, int, int, str, float, str]  # shard, offset_samples, num_samples, source, start_s, speaker
Text = tuple[str, str]  # source, text


@dataclass
class Journal:
    """What is known of the sources done so far."""

    next_source: int = 0
    shards: list[Shard] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    source_samples: int = 0

    def add(self, other: Journal) -> None:
        """Appends what follows."""
        self.next_source = other.next_source
        self.shards += other.shards
        self.rows += other.rows
        self.skipped += other.skipped
        self.texts += other.texts
        self.source_samples += other.source_samples

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Journal:
        """Of what `asdict` gave."""
        return cls(
            value["next_source"],
            [Shard(**each) for each in value["shards"]],
            [(row[0], row[1], row[2], row[3], row[4], row[5]) for row in value["rows"]],
            [Skipped(**each) for each in value["skipped"]],
            [(source, text) for source, text in value["texts"]],
            value["source_samples"],
        )


class ShardWriter:
    """Takes recordings in turn. Shards end where a recording ends, but for those longer than a shard.

    A journal entry is written when all recordings up to a shard's end are stored; what came after the last entry is
    done again.

    Attributes:
        done: what is stored, and survives a kill.
    """

    def __init__(self, folder: Path, sample_rate: int, segment_samples: int, shard_samples: int) -> None:
        """Goes on from the journal in `folder`, if there is one."""
        self._folder, self._rate = folder, sample_rate
        self._segment = segment_samples
        self._shard_samples = max(shard_samples, 2 * segment_samples)
        self.done = Journal()
        for entry in sorted((folder / WORK).glob("[0-9]*.json")):
            self.done.add(Journal.from_dict(read_json(entry)))
        self._new = Journal(self.done.next_source)
        self._chunks: list[NDArray[np.int16]] = []
        self._held = 0

    def skip(self, name: str, reason: str) -> None:
        """Notes a recording that isn't kept."""
        self._new.skipped.append(Skipped(name, reason))
        self._new.next_source += 1

    def add(self, source: Source, spool: Spool) -> None:
        """Stores a recording and its segments."""
        if self._held and self._held + spool.num_samples > self._shard_samples:
            self._close_shard()
            self._commit()
        pieces = list(self._pieces(spool.num_samples))
        for index, (start, length, segments) in enumerate(pieces):
            if index:
                self._close_shard()
            shard = len(self.done.shards) + len(self._new.shards)
            for first, size in segments:
                offset = self._held + first - start
                self._new.rows.append((shard, offset, size, source.name, first / self._rate, source.speaker))
            self._chunks.append(spool.read(start, length))
            self._held += length
        if source.text is not None:
            self._new.texts.append((source.name, source.text))
        self._new.source_samples += spool.num_samples
        self._new.next_source += 1
        if len(pieces) > 1:  # else a kill would find shards that the journal knows in part
            self._close_shard()
            self._commit()

    def finish(self) -> Journal:
        """Stores the rest."""
        if self._held:
            self._close_shard()
        self._commit()
        return self.done

    def _pieces(self, num_samples: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Stretches that fit in a shard, with their segments: (start, length, segments)."""
        segments = cut(num_samples, self._segment)
        piece: list[tuple[int, int]] = []
        for index, (start, length) in enumerate(segments):
            last = index == len(segments) - 1  # it overlaps the one before, and stays with it
            if piece and not last and start + length - piece[0][0] > self._shard_samples:
                yield piece[0][0], sum(piece[-1]) - piece[0][0], piece
                piece = []
            piece.append((start, length))
        yield piece[0][0], sum(piece[-1]) - piece[0][0], piece

    def _close_shard(self) -> None:
        name = shard_name(len(self.done.shards) + len(self._new.shards))
        path = self._folder / AUDIO / name
        save_array(path, np.concatenate(self._chunks))
        self._new.shards.append(Shard(name, self._held, path.stat().st_size, sha256_of(path)))
        self._chunks, self._held = [], 0

    def _commit(self) -> None:
        entry = self._folder / WORK / f"{self._new.next_source:09d}.json"
        if self._new.next_source > self.done.next_source:
            write_json(entry, asdict(self._new))
        self.done.add(self._new)
        self._new = Journal(self.done.next_source)


def begin(folder: Path, identity: dict[str, Any]) -> bool:
    """Starts a run, or finds one to go on with.

    Returns:
        Whether the run in `folder` is a new one or of this identity.
    """
    path = folder / WORK / "run.json"
    if not path.exists():
        write_json(path, identity)
        return True
    return json.dumps(read_json(path), sort_keys=True) == json.dumps(identity, sort_keys=True)


def cut(num_samples: int, segment_samples: int) -> list[tuple[int, int]]:
    """Cuts a source so that every sample lies in a segment.

    A source longer than a segment gives full segments only: the last is moved back to end where the source ends, and
    overlaps the one before. A shorter source is one segment of its own length.

    Returns:
        (start, length) of each segment, in samples, by start.
    """
    if num_samples <= segment_samples:
        return [(0, num_samples)] if num_samples > 0 else []
    starts = list(range(0, num_samples - segment_samples + 1, segment_samples))
    if starts[-1] + segment_samples < num_samples:
        starts.append(num_samples - segment_samples)
    return [(start, segment_samples) for start in starts]


def split_keys(keys: Collection[str], validation: float, seed: int) -> dict[str, str]:
    """Assigns each key (a speaker, a file) to a split by its hash: added keys move no others.

    Where the hashes leave one split empty, the key nearest to the border changes sides.

    Args:
        keys: of the sources.
        validation: share of the keys that validate, from 0 (none) to below 1.
        seed: another seed, another split.

    Raises:
        DataError: a single key can't be split.
    """
    places = {key: _place(key, seed) for key in keys}
    chosen = {key for key, place in places.items() if place < validation}
    if validation > 0 and len(places) < 2:
        only = next(iter(places), "")
        raise DataError(
            f"{only!r} alone can't be split into {TRAIN} and {VALIDATION}; "
            "use --validation 0, --split-by file, or more audio"
        )
    if validation > 0 and not chosen:
        chosen = {min(places, key=places.__getitem__)}
    if len(chosen) == len(places):
        chosen.discard(max(places, key=places.__getitem__))
    return {key: VALIDATION if key in chosen else TRAIN for key in places}


def _place(key: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


_MEMORY_BYTES = 32 << 20  # 17 minutes at 16 kHz


class Spool:
    """Int16 samples of one recording.

    Attributes:
        num_samples: so far.
        peak: largest magnitude, of full scale 1.
    """

    def __init__(self, folder: Path) -> None:
        """An empty spool; what doesn't fit in memory goes to a nameless file in `folder`."""
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115 - closed on exit
        self.num_samples = 0
        self.peak = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees memory and disk."""
        self._file.close()

    def extend(self, blocks: Iterable[Waveform]) -> None:
        """Appends blocks (samples,) of float32; what lies beyond [-1, 1] is clipped.

        Raises:
            OutputError: the disk is full.
        """
        for block in blocks:
            if not len(block):
                continue
            samples = np.clip(np.rint(block * np.float32(32768)), -32768, 32767).astype("<i2")
            self.peak = max(self.peak, float(np.abs(samples.astype(np.int32)).max()) / 32768)
            self.num_samples += len(samples)
            try:
                self._file.write(samples.tobytes())
            except OSError as error:
                raise OutputError(
                    f"{self._folder}: can't be written ({error.strerror or error}); check the disk and the rights"
                ) from error

    def read(self, start: int, length: int) -> NDArray[np.int16]:
        """(length,) samples from `start`."""
        self._file.seek(2 * start)
        return np.frombuffer(self._file.read(2 * length), "<i2").astype(np.int16)
