"""Speaker embeddings: a transformers x-vector model, or Resemblyzer's."""

from __future__ import annotations

import math
import warnings
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError, MissingDependencyError, PretrainedModelError
from dmcodec.pretrained.loading import load_pretrained, package_version, quiet_transformers

from .signal_metrics import SAMPLE_RATE

RESEMBLYZER = "resemblyzer"
MIN_S = 0.5


class SpeakerModel(Protocol):
    """What speaker similarity needs. `description` says which model it is, and its version."""

    @property
    def description(self) -> str: ...

    def embed(self, waveform: Waveform) -> NDArray[np.floating]:
        """Embedding (dimension,) of (samples,) at 16 kHz; MetricError where there is no voice to be found."""


def load_speaker_model(model: str, threads: int | None = None) -> SpeakerModel:
    """The speaker model of that name; `threads` are torch's, for the whole process."""
    return Resemblyzer() if model == RESEMBLYZER else XVector(model, threads)


def similarity(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Cosine of two embeddings."""
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    if not math.isfinite(cosine):
        raise MetricError("the speaker model gave no direction (a silent clip?)")
    return cosine


class XVector:
    """A transformers model for audio x-vectors (`AutoModelForAudioXVector`)."""

    def __init__(self, model: str, threads: int | None = None) -> None:
        self._extractor, self._model = load_pretrained("speaker model", model, lambda: _x_vector(model, threads))
        self._description = f"{model} (x-vector, transformers {package_version('transformers')})"

    @property
    def description(self) -> str:
        """Which model."""
        return self._description

    def embed(self, waveform: Waveform) -> NDArray[np.floating]:
        import torch

        _refuse_short(waveform)
        with torch.inference_mode(), quiet_transformers():
            inputs = self._extractor(np.array(waveform), sampling_rate=SAMPLE_RATE, return_tensors="pt")
            return np.asarray(self._model(**inputs).embeddings[0].numpy())


class Resemblyzer:
    """The encoder of the Resemblyzer package (GE2E), with its own trimming of silence and levelling."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an import path that scipy has deprecated
                import resemblyzer
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"speaker model {RESEMBLYZER!r} needs {error.name}; run `pip install librosa webrtcvad-wheels` and "
                "`pip install --no-deps Resemblyzer`"
            ) from None
        self._prepare = resemblyzer.preprocess_wav
        self._encoder: Any = resemblyzer.VoiceEncoder("cpu", verbose=False)

    @property
    def description(self) -> str:
        """Which model."""
        return f"Resemblyzer {package_version('Resemblyzer')}"

    def embed(self, waveform: Waveform) -> NDArray[np.floating]:
        _refuse_short(waveform)
        if not np.any(waveform):
            raise MetricError("silent: no voice to embed")
        return np.asarray(self._encoder.embed_utterance(self._prepare(waveform, SAMPLE_RATE)))


def _refuse_short(waveform: Waveform) -> None:
    if len(waveform) < MIN_S * SAMPLE_RATE:
        raise MetricError(f"shorter than {MIN_S:g} s, too short for a speaker embedding")


def _x_vector(model: str, threads: int | None) -> tuple[Any, Any]:
    import torch
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioXVector

    extractors: Any = AutoFeatureExtractor
    if threads:
        torch.set_num_threads(threads)
    architectures = AutoConfig.from_pretrained(model).architectures or []
    if not any(name.endswith("ForXVector") for name in architectures):  # else its head would be random numbers
        raise PretrainedModelError(f"speaker model {model!r} is no x-vector model ({', '.join(architectures) or '?'})")
    return extractors.from_pretrained(model), AutoModelForAudioXVector.from_pretrained(
        model, dtype=torch.float32
    ).eval()
