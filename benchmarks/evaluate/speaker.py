"""Speaker embeddings: a transformers x-vector model, or Resemblyzer's."""

from __future__ import annotations

import math
import warnings
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError, MissingDependencyError, PretrainedModelError
from dmcodec.pretrained.loading import EVALUATION, load, load_model, package_version, quiet, transformers

from .signal_metrics import SAMPLE_RATE

RESEMBLYZER = "resemblyzer"
MIN_S = 0.5


class SpeakerModel(Protocol):
    """Embeds the voice of one clip, for speaker similarity. `description` names the model and its version."""

    @property
    def description(self) -> str: ...

    def embed(self, waveform: Waveform) -> NDArray[np.floating]:
        """Return the embedding (dimension,) of (samples,) at 16 kHz; MetricError where the clip has no voice."""


def load_speaker_model(model: str) -> SpeakerModel:
    """Load Resemblyzer's model, or an x-vector model of transformers."""
    return Resemblyzer() if model == RESEMBLYZER else XVector(model)


def similarity(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the cosine similarity of two embeddings."""
    cosine = float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    if not math.isfinite(cosine):
        raise MetricError("the speaker model gave no direction (a silent clip?)")
    return cosine


class XVector:
    """A transformers model for audio x-vectors (`AutoModelForAudioXVector`)."""

    def __init__(self, model: str) -> None:
        """Load the model; PretrainedModelError where it can't be loaded, or is no x-vector model."""
        module = transformers(EVALUATION)
        config = load(EVALUATION, "speaker model", model, module.AutoConfig.from_pretrained)
        architectures = config.architectures or []
        if not any(name.endswith("ForXVector") for name in architectures):
            raise PretrainedModelError(
                f"speaker model {model!r} is no x-vector model ({', '.join(architectures) or '?'}); "
                f"name one, or {RESEMBLYZER}"
            )
        extractors = module.AutoFeatureExtractor
        self._extractor = load(EVALUATION, "feature extractor of speaker model", model, extractors.from_pretrained)
        self._model = load_model(EVALUATION, "speaker model", model, module.AutoModelForAudioXVector, "cpu")
        self._description = f"{model} (x-vector, transformers {package_version('transformers')})"

    @property
    def description(self) -> str:
        """Name and version of the model."""
        return self._description

    def embed(self, waveform: Waveform) -> NDArray[np.floating]:
        import torch

        _refuse_short(waveform)
        with torch.inference_mode(), quiet():
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
        """Name and version of the model."""
        return f"Resemblyzer {package_version('Resemblyzer')}"

    def embed(self, waveform: Waveform) -> NDArray[np.floating]:
        _refuse_short(waveform)
        if not np.any(waveform):
            raise MetricError("silent: no voice to embed")
        return np.asarray(self._encoder.embed_utterance(self._prepare(waveform, SAMPLE_RATE)))


def _refuse_short(waveform: Waveform) -> None:
    if len(waveform) < MIN_S * SAMPLE_RATE:
        raise MetricError(f"shorter than {MIN_S:g} s, too short for a speaker embedding")
