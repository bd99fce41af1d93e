"""The recogniser behind word error rates."""

from __future__ import annotations

from typing import Protocol

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError
from dmcodec.pretrained.loading import EVALUATION, package_version
from dmcodec.pretrained.recognisers import load_recogniser, model_type

from .signal_metrics import SAMPLE_RATE

MIN_S = 0.1


class TextRecogniser(Protocol):
    """Recognises the text of one clip, for WER. `description` names the model, its decoding and its version."""

    @property
    def description(self) -> str: ...

    def transcribe(self, waveform: Waveform) -> str:
        """Return the text of (samples,) at 16 kHz; MetricError where the clip is too short."""


class TransformersRecogniser:
    """A CTC or Whisper model of transformers: greedy decoding, float32 on the CPU."""

    def __init__(self, model: str, language: str | None = "en") -> None:
        """Load the model.

        Args:
            model: id on the hub, or folder.
            language: of the speech, for Whisper; None lets a multilingual model detect it. CTC models ignore it.

        Raises:
            PretrainedModelError: the model can't be loaded, or is neither CTC nor Whisper.
        """
        whisper_language = language if model_type(model, EVALUATION) == "whisper" else None
        self._recogniser = load_recogniser(model, "cpu", SAMPLE_RATE, whisper_language, times=False, purpose=EVALUATION)
        self._name = model

    @property
    def description(self) -> str:
        """Name of the model, its decoding, and the version of transformers."""
        language = f", language {self._recogniser.language}" if self._recogniser.language else ""
        version = package_version("transformers")
        return f"{self._name} ({self._recogniser.kind}, greedy{language}, transformers {version})"

    def transcribe(self, waveform: Waveform) -> str:
        """Return the text of (samples,) at 16 kHz.

        Raises:
            MetricError: shorter than 0.1 s, which the models' feature extractors can't process.
        """
        if len(waveform) < MIN_S * SAMPLE_RATE:
            raise MetricError(f"shorter than {MIN_S:g} s, too short to recognise")
        return self._recogniser.transcribe_long(waveform)
