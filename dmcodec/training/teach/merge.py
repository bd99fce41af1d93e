"""Transcripts of segments from given texts and recognised words, with the times of the words."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dmcodec.errors import TeacherError
from dmcodec.pretrained.transcription import Transcription, Word, distribute_words
from dmcodec.pretrained.whisper import POSITIONS_PER_S
from dmcodec.training.data.dataset import PreparedData
from dmcodec.training.data.given_transcripts import GivenTranscripts, match_transcripts
from dmcodec.transcripts import TextSpan

from .transcripts import GIVEN, RECOGNISED, Transcript

TABLE = "the given transcripts"  # in errors


@dataclass(frozen=True)
class SegmentSources:
    """Recording, start and duration of each segment, and the segments of each recording."""

    source: list[str]
    start_s: list[float]
    duration_s: list[float]
    segments: dict[str, list[int]]

    @classmethod
    def of(cls, data: PreparedData) -> SegmentSources:
        """Read the sources of a data folder."""
        table = data.table()
        source = table.column("source").to_pylist()
        segments: dict[str, list[int]] = {}
        for index, name in enumerate(source):
            segments.setdefault(name, []).append(index)
        return cls(
            source, table.column("start_s").to_pylist(), (data.num_samples / data.sample_rate).tolist(), segments
        )

    def end_s(self, segments: Sequence[int]) -> float:
        """Return the end of the last of a recording's segments."""
        return max(self.start_s[segment] + self.duration_s[segment] for segment in segments)


def segments_to_recognise(data: PreparedData, given: GivenTranscripts) -> list[int]:
    """Return the segments whose text or times are not given."""
    sources = SegmentSources.of(data)
    matched = match_transcripts(given, sources.segments, TABLE)
    known = {source for source, found in matched.items() if found and all(span.start_s is not None for span in found)}
    return [segment for segment, source in enumerate(sources.source) if source not in known]


def merge_transcripts(
    data: PreparedData, given: GivenTranscripts, recognised: Mapping[int, Transcription]
) -> list[Transcript]:
    """Return the transcript of every segment.

    A given text has priority. Where it has no times, its words take the times of the recognised words.

    Args:
        data: the segments.
        given: transcripts of recordings.
        recognised: transcriptions of segments, by segment id.

    Raises:
        TeacherError: segments that have neither.
    """
    sources = SegmentSources.of(data)
    given_words = _given_words(sources, given, recognised)
    missing = [i for i in range(data.num_segments) if i not in given_words and i not in recognised]
    if missing:
        raise TeacherError(
            f"{len(missing)} of {data.num_segments} segments have no transcript, the first of "
            f"{sources.source[missing[0]]}; give --asr MODEL to recognise them, or more --transcripts"
        )
    merged = []
    for segment in range(data.num_segments):
        found = recognised.get(segment)
        frames = found.num_frames if found else math.ceil(round(sources.duration_s[segment] * POSITIONS_PER_S, 6))
        if segment in given_words:
            words = given_words[segment]
            merged.append(Transcript(" ".join(word.text for word in words), tuple(words), frames, GIVEN))
        elif found:
            merged.append(Transcript(found.text, found.words, frames, RECOGNISED))
    return merged


def _given_words(
    sources: SegmentSources, given: GivenTranscripts, recognised: Mapping[int, Transcription]
) -> dict[int, list[Word]]:
    """Return the given words, with times, of each segment that has any transcript given."""
    given_words: dict[int, list[Word]] = {}
    for source, spans in match_transcripts(given, sources.segments, TABLE).items():
        segments = sources.segments[source]
        words = place_words(spans, sources.end_s(segments))
        if any(span.start_s is None for span in spans):
            words = transfer_times(words, recognised_words(sources, segments, recognised))
        for segment in segments:
            given_words[segment] = words_within(words, sources.start_s[segment], sources.duration_s[segment])
    return given_words


def recognised_words(
    sources: SegmentSources, segments: Sequence[int], recognised: Mapping[int, Transcription]
) -> list[Word]:
    """Return the words recognised in a recording, with times from its start.

    Where segments overlap, each counts up to the middle of the overlap.
    """
    words: list[Word] = []
    borders = [
        (sources.start_s[earlier] + sources.duration_s[earlier] + sources.start_s[later]) / 2
        for earlier, later in pairwise(segments)
    ]
    for segment, first_s, last_s in zip(segments, [-math.inf, *borders], [*borders, math.inf], strict=True):
        start_s = sources.start_s[segment]
        for word in recognised[segment].words if segment in recognised else ():
            if first_s <= start_s + (word.start_s + word.end_s) / 2 < last_s:
                words.append(Word(word.text, start_s + word.start_s, start_s + word.end_s))
    return words


def place_words(spans: Sequence[TextSpan], duration_s: float) -> list[Word]:
    """Return the words of spans of text in time; a span without times takes the whole recording."""
    words: list[Word] = []
    for span in spans:
        start_s = 0.0 if span.start_s is None else min(span.start_s, duration_s)
        end_s = duration_s if span.end_s is None else min(span.end_s, duration_s)
        words += distribute_words(span.text, start_s, end_s)
    return sorted(words, key=lambda word: word.start_s)


def words_within(words: Sequence[Word], start_s: float, duration_s: float) -> list[Word]:
    """Return the words whose middle lies in a segment, with times from its start, limited to the segment."""
    end_s = start_s + duration_s
    inside = [word for word in words if start_s <= (word.start_s + word.end_s) / 2 < end_s]
    return [Word(word.text, max(word.start_s - start_s, 0.0), min(word.end_s - start_s, duration_s)) for word in inside]


def transfer_times(words: Sequence[Word], recognised: Sequence[Word]) -> list[Word]:
    """Return `words` with the times of the same words in `recognised`.

    Words that were recognised differently share the time between their neighbours by their characters. Where no word
    matches, all keep their times.
    """
    plain, plain_recognised = [_plain(word.text) for word in words], [_plain(word.text) for word in recognised]
    times: list[tuple[float, float] | None] = [None] * len(words)
    for block in difflib.SequenceMatcher(None, plain, plain_recognised, autojunk=False).get_matching_blocks():
        for step in range(block.size):
            if plain[block.a + step]:
                found = recognised[block.b + step]
                times[block.a + step] = (found.start_s, found.end_s)
    if not any(times):
        return list(words)
    return _fill_gaps(words, times)


def _fill_gaps(words: Sequence[Word], times: Sequence[tuple[float, float] | None]) -> list[Word]:
    """Return `words` with `times`; words without a time share the gap between their neighbours."""
    filled: list[Word] = []
    index = 0
    while index < len(words):
        known = times[index]
        if known:
            filled.append(Word(words[index].text, *known))
            index += 1
            continue
        end = index
        while end < len(words) and times[end] is None:
            end += 1
        before_s = filled[-1].end_s if filled else min(words[0].start_s, (times[end] or (0.0, 0.0))[0])
        next_time = times[end] if end < len(words) else None
        after_s = next_time[0] if next_time else max(words[-1].end_s, before_s)
        filled += distribute_words(" ".join(word.text for word in words[index:end]), before_s, max(before_s, after_s))
        index = end
    return filled


def _plain(text: str) -> str:
    return re.sub(r"[^\w']", "", text).casefold()
