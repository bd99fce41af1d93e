"""Speech recognition with CTC models: wav2vec 2.0, HuBERT, WavLM and similar ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dmcodec.audio import Waveform

from .loading import Purpose, load, load_model, quiet, transformers, weights_id
from .transcription import Transcription, Word
from .waveform_inputs import allows_padding, at_rate, model_rate, num_frames

CHUNK_S = 30.0  # of `transcribe_long`
OVERLAP_S = CHUNK_S / 6  # on each side of a chunk, thrown away


class CtcRecogniser:
    """Best path of a CTC model. The times of a word are those of the frames that spell it."""

    kind = "CTC"
    language: str | None = None
    times = True

    def __init__(self, model_id: str, device: str, sample_rate: int, purpose: Purpose) -> None:
        module = transformers(purpose)
        self.model_id, self._device, self._input_rate, self._purpose = model_id, device, sample_rate, purpose
        self._model = load_model(purpose, "recogniser", model_id, module.AutoModelForCTC, device)
        self._extractor = load(
            purpose, "feature extractor of recogniser", model_id, module.AutoFeatureExtractor.from_pretrained
        )
        self._tokenizer = load(purpose, "tokenizer of recogniser", model_id, module.AutoTokenizer.from_pretrained)
        self._rate = model_rate(self._extractor, sample_rate)
        self.weights_id = weights_id(model_id, self._model)
        self.pads = allows_padding(self._model, self._extractor)
        ratio = getattr(self._model.config, "inputs_to_logits_ratio", None)
        if not ratio:
            raise purpose.error(f"recogniser {model_id!r} has no fixed number of samples per frame; use another one")
        self._samples_per_frame = int(ratio)
        self.frame_rate_hz = self._rate / self._samples_per_frame

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcription]:
        """Transcribe a batch of waveforms (samples,), of one length unless `pads`."""
        waveforms = at_rate(waveforms, self._input_rate, self._rate)
        ids = self._best_path(waveforms)
        same_length = len({len(waveform) for waveform in waveforms}) == 1
        frames = [ids.shape[1] if same_length else num_frames(self._model, len(waveform)) for waveform in waveforms]
        return [self._decode(row[:count]) for row, count in zip(ids, frames, strict=True)]

    def transcribe_long(self, waveform: Waveform) -> str:
        """Return the text of a waveform (samples,) of any length; beyond 30 s in chunks with 5 s of context."""
        import torch

        [waveform] = at_rate([waveform], self._input_rate, self._rate)
        ids = torch.cat([self._best_path([chunk])[0, first:last] for chunk, first, last in self._chunks(waveform)])
        return " ".join(self._tokenizer.decode(ids).split())

    def _chunks(self, waveform: Waveform) -> Iterator[tuple[Waveform, int, int]]:
        """Yield chunks, and which of their frames to keep."""
        frame = self._samples_per_frame
        if len(waveform) <= CHUNK_S * self._rate:
            yield waveform, 0, len(waveform)
            return
        size, overlap = (round(seconds * self._rate / frame) for seconds in (CHUNK_S, OVERLAP_S))
        for start in range(0, len(waveform), (size - 2 * overlap) * frame):
            chunk = waveform[start : start + size * frame]
            is_last = start + size * frame >= len(waveform)
            yield chunk, overlap if start else 0, len(chunk) if is_last else size - overlap
            if is_last:
                return

    def _best_path(self, waveforms: Sequence[Waveform]) -> Any:
        """Return the most likely token of each frame, [B, frames]."""
        import torch

        arguments: dict[str, Any] = {"sampling_rate": self._rate, "return_tensors": "pt", "padding": True}
        if self.pads:
            arguments["return_attention_mask"] = True
        with torch.inference_mode(), quiet():
            logits = self._model(**self._extractor(list(waveforms), **arguments).to(self._device)).logits
        if not torch.isfinite(logits).all():
            raise self._purpose.error(f"recogniser {self.model_id!r} returns NaN or infinite values; use another one")
        return logits.argmax(dim=-1).cpu()

    def _decode(self, ids: Any) -> Transcription:
        decoded = self._tokenizer.decode(ids, output_word_offsets=True)
        seconds = self._samples_per_frame / self._rate
        words = tuple(
            Word(offset["word"], float(offset["start_offset"] * seconds), float(offset["end_offset"] * seconds))
            for offset in decoded.word_offsets
            if offset["word"].strip()
        )
        return Transcription(" ".join(decoded.text.split()), words, len(ids))
