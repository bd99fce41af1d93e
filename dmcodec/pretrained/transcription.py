"""Words with their times, and the result of speech recognition."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word and when it is said, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcription:
    """What a recogniser returns for one waveform.

    Attributes:
        text: the transcript; "" where no word was recognised.
        words: with times from the start of the waveform. A recogniser without word times distributes the words over
            the waveform (`distribute_words`).
        num_frames: frames of the recogniser's output that belong to the waveform, without padding.
    """

    text: str
    words: tuple[Word, ...]
    num_frames: int


def distribute_words(text: str, start_s: float, end_s: float) -> list[Word]:
    """Return the words of a text, distributed over an interval.

    A word gets a share of the time in proportion to its number of characters plus one.
    """
    words = text.split()
    total = sum(len(word) + 1 for word in words)
    timed, done = [], 0
    for word in words:
        begin = start_s + (end_s - start_s) * done / total
        done += len(word) + 1
        timed.append(Word(word, begin, start_s + (end_s - start_s) * done / total))
    return timed
