"""The pretrained models of an evaluation (recogniser, speaker model, UTMOS), and the metrics of their outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import EvaluationError, MetricError
from dmcodec.pretrained.loading import set_threads

from .columns import Clip
from .metrics import SPEAKER_METRIC, UTMOS_METRIC, WORD_METRICS
from .options import DEFAULT_SPEAKER_MODEL, ORIGINAL, EvaluateOptions
from .recogniser import TextRecogniser, TransformersRecogniser
from .result import ScoreBook
from .speaker import SpeakerModel, load_speaker_model, similarity
from .utmos import MosModel, UtmosModel
from .words import (
    Normaliser,
    count_words,
    load_normaliser,
    read_reference_texts,
    word_error_rate,
    word_information_lost,
)


@dataclasses.dataclass
class Words:
    """Recognises clips and counts their word errors.

    Attributes:
        transcripts: reference texts by clip; None: the recogniser's texts of the originals are the reference.
        rates: keys of the rates to compute.
        references: reference texts of the clips so far.
    """

    recogniser: TextRecogniser
    normalise: Normaliser
    normaliser_description: str
    transcripts: Mapping[str, str] | None
    rates: tuple[str, ...]
    references: dict[str, str] = dataclasses.field(default_factory=dict)

    def add_original(self, clip: str, waveform: Waveform, book: ScoreBook) -> None:
        """Set the clip's reference text; with transcripts, also count the errors of the original."""
        if self.transcripts is None:
            try:
                self.references[clip] = self.recogniser.transcribe(waveform)
            except MetricError as error:
                book.add(ORIGINAL, clip, {}, dict.fromkeys(self.rates, str(error)))
            return
        if clip in self.transcripts:
            self.references[clip] = self.transcripts[clip]
        self.add_reconstruction(ORIGINAL, clip, waveform, book)

    def add_reconstruction(self, column: str, clip: str, waveform: Waveform, book: ScoreBook) -> None:
        """Count the errors of one clip in one column."""
        try:
            text = self.recogniser.transcribe(waveform)
            words = count_words(self.normalise(self._reference(clip)), self.normalise(text))
        except MetricError as error:
            book.add(column, clip, {}, dict.fromkeys(self.rates, str(error)))
            return
        sums = np.array(words.sums, np.float64)
        rates = {"wer": float(word_error_rate(sums)), "wil": float(word_information_lost(sums))}
        book.add_words(column, clip, text, words, {key: rates[key] for key in self.rates})

    def _reference(self, clip: str) -> str:
        if clip not in self.references:
            raise MetricError("no reference text for it")
        return self.references[clip]


@dataclasses.dataclass
class Speakers:
    """Compares the voice of each reconstruction with that of the original."""

    model: SpeakerModel
    original: NDArray[np.floating] | MetricError | None = None

    def add_original(self, waveform: Waveform) -> None:
        """Embed the original with which the next reconstructions are compared."""
        try:
            self.original = self.model.embed(waveform)
        except MetricError as error:
            self.original = error

    def add_reconstruction(self, column: str, clip: str, waveform: Waveform, book: ScoreBook) -> None:
        """Compare one reconstruction with the original."""
        try:
            value = similarity(self._original_embedding(), self.model.embed(waveform))
        except MetricError as error:
            book.add(column, clip, {}, {SPEAKER_METRIC: str(error)})
            return
        book.add(column, clip, {SPEAKER_METRIC: value}, {})

    def _original_embedding(self) -> NDArray[np.floating]:
        if self.original is None or isinstance(self.original, MetricError):
            raise MetricError(f"the original: {self.original}")
        return self.original


@dataclasses.dataclass
class Naturalness:
    """Predicts the opinion score of originals and reconstructions."""

    model: MosModel
    original_is_silent: bool = False

    def add_original(self, clip: str, waveform: Waveform, book: ScoreBook) -> None:
        """Score an original, whose reconstructions come next: of silence, they have no score."""
        self.original_is_silent = not np.any(waveform)
        self.add(ORIGINAL, clip, waveform, book)

    def add(self, column: str, clip: str, waveform: Waveform, book: ScoreBook) -> None:
        """Score one clip in one column, or in ORIGINAL."""
        if self.original_is_silent and column != ORIGINAL:
            book.add(column, clip, {}, {UTMOS_METRIC: "the original is silent"})
            return
        try:
            book.add(column, clip, {UTMOS_METRIC: self.model.score(waveform)}, {})
        except MetricError as error:
            book.add(column, clip, {}, {UTMOS_METRIC: str(error)})


@dataclasses.dataclass(frozen=True)
class Models:
    """The models that the options ask for."""

    words: Words | None
    speakers: Speakers | None
    naturalness: Naturalness | None = None

    @property
    def count(self) -> int:
        """Number of model runs for each clip of a column."""
        return sum(each is not None for each in (self.words, self.speakers, self.naturalness))

    @property
    def definitions(self) -> dict[str, str]:
        """Models and reference texts of the metrics, by the metric's key."""
        found = {}
        if self.words:
            texts = "the transcripts" if self.words.transcripts is not None else "its own text of the original"
            description = (
                f"recogniser {self.words.recogniser.description}; reference texts: {texts}; "
                f"{self.words.normaliser_description}"
            )
            found.update(dict.fromkeys(WORD_METRICS, description))
        if self.speakers:
            found[SPEAKER_METRIC] = self.speakers.model.description
        if self.naturalness:
            found[UTMOS_METRIC] = self.naturalness.model.description
        return found

    def add_original(self, clip: str, waveform: Waveform, book: ScoreBook) -> None:
        """Run the models on a clip's original, (samples,) at 16 kHz; this comes before its reconstructions."""
        if self.words:
            self.words.add_original(clip, waveform, book)
        if self.speakers:
            self.speakers.add_original(waveform)
        if self.naturalness:
            self.naturalness.add_original(clip, waveform, book)

    def add_reconstruction(self, column: str, clip: str, waveform: Waveform, book: ScoreBook) -> None:
        """Run the models on one reconstruction of the last clip, and add the results to the book."""
        if self.words:
            self.words.add_reconstruction(column, clip, waveform, book)
        if self.speakers:
            self.speakers.add_reconstruction(column, clip, waveform, book)
        if self.naturalness:
            self.naturalness.add(column, clip, waveform, book)


def load_models(
    options: EvaluateOptions, clips: Sequence[Clip], recogniser: TextRecogniser | None, speaker: SpeakerModel | None
) -> Models:
    """Load the models that the options name; `recogniser` and `speaker` replace them.

    Raises:
        InputNotFoundError, EvaluationError: no such transcripts, or none of them belongs to a clip.
        PretrainedModelError, MissingDependencyError: a model can't be loaded.
    """
    words = speakers = naturalness = None
    if options.wants_words or options.wants_speaker or options.utmos:
        set_threads(options.threads)
    if options.wants_words and options.recogniser:
        transcripts = _transcripts(options, clips)
        normalise, description = load_normaliser(options.normaliser)
        recogniser = recogniser or TransformersRecogniser(options.recogniser, options.language)
        rates = tuple(key for key in WORD_METRICS if key in options.wanted)
        words = Words(recogniser, normalise, description, transcripts, rates)
    if options.wants_speaker:
        name = options.speaker_model or DEFAULT_SPEAKER_MODEL
        speakers = Speakers(speaker or load_speaker_model(name))
    if options.utmos is not None:
        naturalness = Naturalness(UtmosModel(options.utmos))
    return Models(words, speakers, naturalness)


def _transcripts(options: EvaluateOptions, clips: Sequence[Clip]) -> Mapping[str, str] | None:
    if options.transcripts is None:
        return None
    texts = read_reference_texts(options.transcripts)
    if not any(clip.name in texts for clip in clips):
        raise EvaluationError(
            f"{options.transcripts}: no line belongs to a file of {options.reference} "
            f"(the first file is {clips[0].name}, the first line's {next(iter(texts))})"
        )
    return texts
