"""Words and their times, from transcripts and from a recogniser."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from dmcodec.pretrained.transcription import Transcription, Word, distribute_words  # noqa: E402
from dmcodec.training.teach.merge import (  # noqa: E402
    SegmentSources,
    place_words,
    recognised_words,
    transfer_times,
    words_within,
)
from dmcodec.transcripts import TextSpan  # noqa: E402

WORDS = strategies.lists(strategies.text("ab,'", min_size=1, max_size=4), max_size=8)


@given(said=WORDS, recognised=WORDS, duration_s=strategies.floats(0.1, 10))
def test_retimed_words_stay_the_same_words_in_order(said: list[str], recognised: list[str], duration_s: float) -> None:
    words = distribute_words(" ".join(said), 0.0, duration_s)
    found = transfer_times(words, distribute_words(" ".join(recognised), 0.2 * duration_s, 0.9 * duration_s))
    assert [word.text for word in found] == said
    assert all(word.start_s <= word.end_s + 1e-9 for word in found)
    starts = [word.start_s for word in found]
    assert all(before <= after + 1e-9 for before, after in pairwise(starts))


def test_words_take_times_from_a_recogniser() -> None:
    words = distribute_words("the big black cat", 0, 4)
    recognised = [Word("The", 1.0, 1.2), Word("pig", 1.2, 1.5), Word("flak", 1.5, 1.9), Word("cat.", 2.0, 2.4)]
    found = transfer_times(words, recognised)
    assert (found[0].start_s, found[0].end_s) == (1.0, 1.2)
    assert (found[3].start_s, found[3].end_s) == (2.0, 2.4)
    assert found[1].start_s == 1.2
    assert found[2].end_s == 2.0
    assert [(word.text, round(word.start_s, 6), round(word.end_s, 6)) for word in words_within(found, 1.9, 1.0)] == [
        ("cat", 0.1, 0.5)
    ]
    placed = place_words([TextSpan("one two", 1.0, 2.0), TextSpan("three", 0.0, 0.5)], 10.0)
    assert [word.text for word in placed] == ["three", "one", "two"]


def test_words_in_an_overlap_count_once() -> None:
    sources = SegmentSources(["a", "a"], [0.0, 2.0], [3.0, 3.0], {"a": [0, 1]})
    recognised = {
        0: Transcription("one two three", (Word("one", 0, 1), Word("two", 2.0, 2.4), Word("thr", 2.7, 3.0)), 150),
        1: Transcription("two three", (Word("two", 0, 0.4), Word("three", 0.7, 1.2)), 150),
    }
    text = {"a": [TextSpan("one two three")]}
    words = recognised_words(sources, [0, 1], recognised)
    assert [(word.text, word.start_s) for word in words] == [("one", 0.0), ("two", 2.0), ("three", 2.7)]
    assert [word.start_s for word in transfer_times(place_words(text["a"], 5.0), words)] == [0.0, 2.0, 2.7]
