"""Transcripts of segments: their table, and speech recognition that an interruption does not undo."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmcodec.pretrained.transcription import Transcription, Word
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.data.layout import TRANSCRIPTS
from dmcodec.training.data.storage import arrow, parquet_module, read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

GIVEN, RECOGNISED = "given", "recognised"
SEGMENTS_PER_PART = 256  # an interruption loses at most one part
_METADATA_KEY = b"dmcodec"


@dataclass(frozen=True)
class Transcript:
    """The transcript of a segment.

    Attributes:
        text: "" where nothing is said.
        words: with times from the start of the segment.
        num_frames: of the recogniser; without one at 50 Hz.
        origin: "given" or "recognised".
    """

    text: str
    words: tuple[Word, ...]
    num_frames: int
    origin: str


def transcripts_path(data: PreparedData) -> Path:
    """Return the path of the transcripts of a data folder."""
    return data.folder / TRANSCRIPTS


def write_transcripts(path: Path, transcripts: Sequence[Transcript], settings: Mapping[str, Any]) -> None:
    """Write a Parquet table whose row number is the segment id, with `settings` in its metadata."""
    rows = {
        "text": [each.text for each in transcripts],
        "words": [[vars(word) for word in each.words] for each in transcripts],
        "num_frames": [each.num_frames for each in transcripts],
        "origin": [each.origin for each in transcripts],
    }
    table = arrow().table(rows, schema=_schema())
    write_table(path, table.replace_schema_metadata({_METADATA_KEY: _canonical(settings).encode()}))


def read_transcripts(path: Path) -> list[Transcript]:
    """Read the table of `write_transcripts`."""
    return [
        Transcript(row["text"], tuple(Word(**word) for word in row["words"]), row["num_frames"], row["origin"])
        for row in read_table(path, _schema()).to_pylist()
    ]


def has_transcripts(path: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether there is a table at `path` that was written with these settings.

    Raises:
        DataError: the table is damaged.
    """
    if not path.exists():
        return False
    read_table(path, _schema(), columns=["origin"])  # raises where the table is damaged
    metadata = parquet_module().read_schema(path).metadata or {}
    return str(metadata.get(_METADATA_KEY, b"").decode()) == _canonical(settings)


def recognise_segments(
    segments: Sequence[int],
    transcribe: Callable[[Sequence[int]], list[Transcription]],
    folder: Path,
    settings: Mapping[str, Any],
    report: Callable[[int, int], None],
) -> dict[int, Transcription]:
    """Transcribe segments part by part, and reuse the parts of an interrupted run with the same settings.

    Args:
        segments: their ids.
        transcribe: called with the ids of a part.
        folder: for the parts.
        settings: that the transcriptions depend on.
        report: called with (segments done, total).
    """
    transcriptions: dict[int, Transcription] = {}
    for part in range(math.ceil(len(segments) / SEGMENTS_PER_PART)):
        ids = [int(segment) for segment in segments[part * SEGMENTS_PER_PART : (part + 1) * SEGMENTS_PER_PART]]
        path = folder / f"{part:05d}.parquet"
        part_settings = {**settings, "segments": ids}
        if has_transcripts(path, part_settings):
            found = [Transcription(each.text, each.words, each.num_frames) for each in read_transcripts(path)]
        else:
            found = transcribe(ids)
            rows = [Transcript(each.text, each.words, each.num_frames, RECOGNISED) for each in found]
            write_transcripts(path, rows, part_settings)
        transcriptions.update(zip(ids, found, strict=True))
        report(len(transcriptions), len(segments))
    return transcriptions


def _schema() -> pa.Schema:
    pa = arrow()
    word = pa.struct([("text", pa.string()), ("start_s", pa.float32()), ("end_s", pa.float32())])
    columns = [("text", pa.string()), ("words", pa.list_(word)), ("num_frames", pa.int32()), ("origin", pa.string())]
    return pa.schema(columns)


def _canonical(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
