"""Word errors: counts from the alignment of two texts (jiwer), and rates from the summed counts of many files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import AUDIO_SUFFIXES
from dmcodec.errors import EvaluationError, InputNotFoundError, MetricError
from dmcodec.pretrained.loading import package_version

# FOLDED: Reference texts: a TSV file of path and text.


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


def read_transcripts(path: Path) -> Mapping[str, str]:
    """Texts by clip name from lines of `path<TAB>text`; the paths are below the reference folder, suffix or not.

    Raises:
        InputNotFoundError: no such file.
        EvaluationError: not such a file; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such file of transcripts") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path}: can't be read as a TSV file of transcripts ({error})") from None
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        file, tab, text = line.partition("\t")
        if not tab:
            raise EvaluationError(f"{path}: line {number} has no tab; expected path<TAB>text")
        name = _clip_name(file.strip())
        if name in texts:
            raise EvaluationError(f"{path}: line {number} names {name} a second time")
        texts[name] = text.strip()
    if not texts:
        raise EvaluationError(f"{path}: holds no transcripts")
    return texts


def _clip_name(file: str) -> str:
    path = PurePosixPath(file)
    return str(path.with_suffix("")) if path.suffix.lower() in AUDIO_SUFFIXES else str(path)
