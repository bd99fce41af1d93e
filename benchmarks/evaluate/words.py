"""Word errors: counts from the alignment of two texts (jiwer), and rates from the summed counts of many files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import AUDIO_SUFFIXES, MEDIA_SUFFIXES
from dmcodec.errors import EvaluationError, MetricError
from dmcodec.pretrained.loading import package_version
from dmcodec.transcripts import TextSpan, read_transcripts

Normaliser = Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class WordCounts:
    """Numbers of words in the alignment of a recognised text with a reference text."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def sums(self) -> tuple[int, int, int, int]:
        """Errors, words of the reference, words recognised, hits: the input of the rates."""
        heard = self.hits + self.substitutions
        errors = self.substitutions + self.deletions + self.insertions
        return errors, heard + self.deletions, heard + self.insertions, self.hits


def word_error_rate(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the word error rate in percent from sums [..., 4] of `WordCounts.sums`."""
    return 100 * sums[..., 0] / sums[..., 1]


def word_information_lost(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the word information lost (Morris et al., Interspeech 2004) in percent from sums [..., 4].

    It is 1 - hits^2 / (words * words recognised).
    """
    words, recognised, hits = sums[..., 1], sums[..., 2], sums[..., 3]
    return 100 * (1 - hits**2 / (words * np.maximum(recognised, 1)))


def count_words(reference: str, recognised: str) -> WordCounts:
    """Count the words of the alignment with the fewest errors; both texts must be normalised.

    Raises:
        MetricError: the reference has no words.
    """
    import jiwer

    if not reference.split():
        raise MetricError("the reference text has no words")
    found = jiwer.process_words(reference, recognised)
    return WordCounts(found.hits, found.substitutions, found.deletions, found.insertions)


def load_normaliser(name: str) -> tuple[Normaliser, str]:
    """Return the normaliser, and its description.

    `english` is Whisper's: it writes contractions and numbers in one way, and drops punctuation and fillers. `basic`
    lowers case and drops punctuation, in any language.
    """
    from transformers.models.whisper import english_normalizer

    version = f"transformers {package_version('transformers')}"
    library: Any = english_normalizer
    if name == "english":
        normalise, words = library.EnglishTextNormalizer({}), "Whisper's English normaliser without its spelling list"
    else:
        normalise, words = library.BasicTextNormalizer(), "Whisper's basic normaliser (lower case, no punctuation)"
    return lambda text: " ".join(normalise(text).split()), f"{words}, {version}"


def read_reference_texts(path: Path) -> Mapping[str, str]:
    """Read the texts of clips, by clip name, from a table of transcripts (`dmcodec.transcripts`).

    The table names files below the reference folder, with or without the suffix.

    Raises:
        InputNotFoundError: no such file.
        EvaluationError: the table is not well-formed; the line is named.
    """
    spans = read_transcripts(path, EvaluationError, _clip_name)
    return {name: " ".join(span.text for span in sorted(each, key=_start_s)) for name, each in spans.items()}


def _start_s(span: TextSpan) -> float:
    return span.start_s or 0.0


def _clip_name(file: str) -> str:
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.suffix.lower() in AUDIO_SUFFIXES | MEDIA_SUFFIXES else str(path)
