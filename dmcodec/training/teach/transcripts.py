"""Transcripts of the segments: given, recognised, or given and timed by a recogniser; and their table."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmcodec.errors import TeacherError
from dmcodec.pretrained.recognisers import MAX_POSITIONS_PER_S, Heard, Word, spread
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.data.given_transcripts import Given, find
from dmcodec.training.data.layout import TRANSCRIPTS, arrow, parquet_module, read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

# FOLDED: Words and their times, in seconds.


GIVEN, RECOGNISED = "given", "recognised"
PER_PART = 256  # segments that a kill costs at most
_KEY = b"dmcodec"


@dataclass(frozen=True)
class Transcript:
    """Of one segment.

    Attributes:
        text: "" where nothing is said.
        words: with times from the segment's start.
        num_frames: the recogniser's; that of 50 Hz where the text was given.
        origin: "given" or "recognised".
    """

    text: str
    words: tuple[Word, ...]
    num_frames: int
    origin: str


def _schema() -> pa.Schema:
    pa = arrow()
    word = pa.struct([("text", pa.string()), ("start_s", pa.float32()), ("end_s", pa.float32())])
    columns = [("text", pa.string()), ("words", pa.list_(word)), ("num_frames", pa.int32()), ("origin", pa.string())]
    return pa.schema(columns)


def write_transcripts(path: Path, transcripts: Sequence[Transcript], settings: Mapping[str, Any]) -> None:
    """Writes a Parquet table whose row number is the segment id, with `settings` in its metadata."""
    rows = {
        "text": [each.text for each in transcripts],
        "words": [[vars(word) for word in each.words] for each in transcripts],
        "num_frames": [each.num_frames for each in transcripts],
        "origin": [each.origin for each in transcripts],
    }
    table = arrow().table(rows, schema=_schema())
    write_table(path, table.replace_schema_metadata({_KEY: json.dumps(settings, sort_keys=True).encode()}))


def read_transcripts(path: Path) -> list[Transcript]:
    """Reads what `write_transcripts` wrote."""
    return [
        Transcript(row["text"], tuple(Word(**word) for word in row["words"]), row["num_frames"], row["origin"])
        for row in read_table(path, _schema()).to_pylist()
    ]


def made_with(path: Path) -> str | None:
    """The settings that a table of transcripts was made with, as JSON; None where there is no such table."""
    if not path.exists():
        return None
    read_table(path, _schema(), columns=["origin"])  # whole?
    metadata = parquet_module().read_schema(path).metadata or {}
    return str(metadata.get(_KEY, b"").decode())


def recognise(
    wanted: Sequence[int],
    transcribe: Callable[[Sequence[int]], list[Heard]],
    work: Path,
    settings: Mapping[str, Any],
    report: Callable[[int, int], None],
) -> dict[int, Heard]:
    """Transcribes segments part by part; parts that an interrupted run of the same settings left are taken over."""
    heard: dict[int, Heard] = {}
    for part in range(math.ceil(len(wanted) / PER_PART)):
        segments = wanted[part * PER_PART : (part + 1) * PER_PART]
        path = work / f"{part:05d}.parquet"
        identity = {**settings, "segments": [int(segment) for segment in segments]}
        if made_with(path) == json.dumps(identity, sort_keys=True):
            found = [Heard(each.text, each.words, each.num_frames) for each in read_transcripts(path)]
        else:
            found = transcribe(segments)
            rows = [Transcript(each.text, each.words, each.num_frames, RECOGNISED) for each in found]
            write_transcripts(path, rows, identity)
        heard.update(zip((int(segment) for segment in segments), found, strict=True))
        report(len(heard), len(wanted))
    return heard


def merge(data: PreparedData, given: dict[str, list[Given]], heard: Mapping[int, Heard]) -> list[Transcript]:
    """The transcript of every segment: given text first, timed as it was heard where it has no times of its own.

    Raises:
        TeacherError: segments that have neither.
    """
    sources = SegmentSources.of(data)
    texts: dict[int, list[Word]] = {}
    for source, segments in sources.segments.items():
        pieces = find(given, source)
        if pieces is None:
            continue
        words = place(pieces, sources.end_s(segments))
        if any(piece.start_s is None for piece in pieces):
            words = retime(words, heard_in(sources, segments, heard))
        for segment in segments:
            texts[segment] = within(words, sources.start_s[segment], sources.duration_s[segment])
    missing = [segment for segment in range(data.num_segments) if segment not in texts and segment not in heard]
    if missing:
        raise TeacherError(
            f"{len(missing)} of {data.num_segments} segments have no transcript, the first of "
            f"{sources.source[missing[0]]}; give --asr MODEL to recognise them, or more --transcripts"
        )
    merged = []
    for segment in range(data.num_segments):
        found = heard.get(segment)
        frames = found.num_frames if found else math.ceil(round(sources.duration_s[segment] * MAX_POSITIONS_PER_S, 6))
        if segment in texts:
            words = texts[segment]
            merged.append(Transcript(" ".join(word.text for word in words), tuple(words), frames, GIVEN))
        elif found:
            merged.append(Transcript(found.text, found.words, frames, RECOGNISED))
    return merged


@dataclass(frozen=True)
class SegmentSources:
    """Which recording each segment is of, and from when to when."""

    source: list[str]
    start_s: list[float]
    duration_s: list[float]
    segments: dict[str, list[int]]

    @classmethod
    def of(cls, data: PreparedData) -> SegmentSources:
        """Of a data folder."""
        table = data.table()
        source = table.column("source").to_pylist()
        segments: dict[str, list[int]] = {}
        for index, name in enumerate(source):
            segments.setdefault(name, []).append(index)
        return cls(
            source, table.column("start_s").to_pylist(), (data.num_samples / data.sample_rate).tolist(), segments
        )

    def end_s(self, segments: Sequence[int]) -> float:
        """When the last of a recording's segments ends."""
        return max(self.start_s[segment] + self.duration_s[segment] for segment in segments)


def heard_in(sources: SegmentSources, segments: Sequence[int], heard: Mapping[int, Heard]) -> list[Word]:
    """Words heard in a recording, in its time. Where segments overlap, each is heard to the middle of the overlap."""
    words: list[Word] = []
    borders = [
        (sources.start_s[earlier] + sources.duration_s[earlier] + sources.start_s[later]) / 2
        for earlier, later in pairwise(segments)
    ]
    for segment, first_s, last_s in zip(segments, [-math.inf, *borders], [*borders, math.inf], strict=True):
        start_s = sources.start_s[segment]
        for word in heard[segment].words if segment in heard else ():
            if first_s <= start_s + (word.start_s + word.end_s) / 2 < last_s:
                words.append(Word(word.text, start_s + word.start_s, start_s + word.end_s))
    return words


def transcripts_path(data: PreparedData) -> Path:
    """Where the transcripts of a data folder lie."""
    return data.folder / TRANSCRIPTS


def place(pieces: Sequence[Given], duration_s: float) -> list[Word]:
    """Words of given pieces over a recording; pieces without times take all of it."""
    words: list[Word] = []
    for piece in pieces:
        start_s = 0.0 if piece.start_s is None else min(piece.start_s, duration_s)
        end_s = duration_s if piece.end_s is None else min(piece.end_s, duration_s)
        words += spread(piece.text, start_s, end_s)
    return sorted(words, key=lambda word: word.start_s)


def within(words: Sequence[Word], start_s: float, duration_s: float) -> list[Word]:
    """Words whose middle lies in a segment, with times from its start, cut to it."""
    end_s = start_s + duration_s
    inside = [word for word in words if start_s <= (word.start_s + word.end_s) / 2 < end_s]
    return [Word(word.text, max(word.start_s - start_s, 0.0), min(word.end_s - start_s, duration_s)) for word in inside]


def retime(words: Sequence[Word], heard: Sequence[Word]) -> list[Word]:
    """Gives words the times of the same words as a recogniser heard them.

    Words that were heard otherwise share the time between their neighbours by their characters; where nothing at all
    was heard alike, all keep their times.
    """
    ours, theirs = [_plain(word.text) for word in words], [_plain(word.text) for word in heard]
    times: list[tuple[float, float] | None] = [None] * len(words)
    for block in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        for step in range(block.size):
            if ours[block.a + step]:
                found = heard[block.b + step]
                times[block.a + step] = (found.start_s, found.end_s)
    if not any(times):
        return list(words)
    return _fill(words, times)


def _fill(words: Sequence[Word], times: Sequence[tuple[float, float] | None]) -> list[Word]:
    filled: list[Word] = []
    index = 0
    while index < len(words):
        known = times[index]
        if known:
            filled.append(Word(words[index].text, *known))
            index += 1
            continue
        last = index
        while last < len(words) and times[last] is None:
            last += 1
        before = filled[-1].end_s if filled else min(words[0].start_s, (times[last] or (0.0, 0.0))[0])
        after_word = times[last] if last < len(words) else None
        after = after_word[0] if after_word else max(words[-1].end_s, before)
        filled += spread(" ".join(word.text for word in words[index:last]), before, max(before, after))
        index = last
    return filled


def _plain(text: str) -> str:
    return re.sub(r"[^\w']", "", text).casefold()
