"""Speech to text with a transformers model: CTC (wav2vec2, HuBERT, ...) or Whisper."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluate.signal_metrics import SAMPLE_RATE
from dmcodec.errors import MetricError, PretrainedModelError
from dmcodec.pretrained.loading import load_pretrained, package_version, quiet_transformers

# Whisper's window; longer clips go through its long-form decoding, and CTC models take them in overlapping chunks.
WINDOW_S = 30.0
MIN_S = 0.1


class Recogniser(Protocol):
    """What WER needs. `description` says which model it is, how it decodes, and its version."""

    @property
    def description(self) -> str: ...

    def transcribe(self, waveform: Waveform) -> str:
        """Text of (samples,) at 16 kHz; MetricError where there is too little of it."""


class TransformersRecogniser:
    """A model of the hub or of a folder, greedy decoding, float32 on the CPU."""

    def __init__(self, model: str, language: str | None = "en", threads: int | None = None) -> None:
        """Loads the model.

        Args:
            model: id or folder.
            language: told to multilingual Whisper models; None lets them guess.
            threads: of torch, for the whole process; as they are by default.

        Raises:
            PretrainedModelError: can't be loaded, or neither CTC nor Whisper.
        """
        self._pipeline = load_pretrained("recogniser", model, lambda: _pipeline(model, threads))
        self._whisper = self._pipeline.model.config.model_type == "whisper"
        self._options: dict[str, Any] = {"num_beams": 1}  # the pipeline's own default is a search with 5 beams
        if self._whisper and getattr(self._pipeline.model.generation_config, "is_multilingual", False):
            self._options |= {"task": "transcribe", **({"language": language} if language else {})}
        kind = "Whisper" if self._whisper else "CTC"
        told = f", language {language}" if "language" in self._options else ""
        self._description = f"{model} ({kind}, greedy{told}, transformers {package_version('transformers')})"

    @property
    def description(self) -> str:
        """Which model, and how it decodes."""
        return self._description

    def transcribe(self, waveform: Waveform) -> str:
        """Text of (samples,) at 16 kHz.

        Raises:
            MetricError: shorter than 0.1 s, which the models' feature extractors can't take.
        """
        if len(waveform) < MIN_S * SAMPLE_RATE:
            raise MetricError(f"shorter than {MIN_S:g} s, too short to recognise")
        options: dict[str, Any] = {"generate_kwargs": self._options} if self._whisper else {}
        if len(waveform) > WINDOW_S * SAMPLE_RATE:
            options |= {"return_timestamps": True} if self._whisper else {"chunk_length_s": WINDOW_S}
        with quiet_transformers():
            found = self._pipeline({"raw": np.array(waveform), "sampling_rate": SAMPLE_RATE}, **options)
        return str(found["text"]).strip()


def _pipeline(model: str, threads: int | None) -> Any:
    import torch
    from transformers import pipeline

    if threads:
        torch.set_num_threads(threads)
    found: Any = pipeline("automatic-speech-recognition", model=model, device="cpu", dtype=torch.float32)
    if found.type not in ("ctc", "seq2seq_whisper"):
        raise PretrainedModelError(f"recogniser {model!r} is neither a CTC nor a Whisper model ({found.type})")
    rate = found.feature_extractor.sampling_rate
    if rate != SAMPLE_RATE:
        raise PretrainedModelError(f"recogniser {model!r} takes {rate} Hz, not {SAMPLE_RATE} Hz")
    return found
