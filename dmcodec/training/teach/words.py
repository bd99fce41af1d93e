"""Words and their times, in seconds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dmcodec.training.data.given import Given


@dataclass(frozen=True)
class Word:
    """A word and when it is said."""

    text: str
    start_s: float
    end_s: float


def spread(text: str, start_s: float, end_s: float) -> list[Word]:
    """Places the words of a text in a stretch of time, each with a share by its number of characters and one more."""
    words = text.split()
    total = sum(len(word) + 1 for word in words)
    placed, done = [], 0
    for word in words:
        begin = start_s + (end_s - start_s) * done / total
        done += len(word) + 1
        placed.append(Word(word, begin, start_s + (end_s - start_s) * done / total))
    return placed


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
