"""Speech recognition with Whisper (arXiv 2212.04356), and its encoder on less than 30 seconds."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

from dmcodec.audio import Waveform
from dmcodec.errors import ArgumentError, first_line

from .loading import Purpose, load, load_model, quiet, transformers, weights_id
from .transcription import Transcription, Word, distribute_words
from .waveform_inputs import at_rate, model_rate

POSITIONS_PER_S = 50  # 10 ms of hop, halved by the second convolution
TOKENS_PER_S, SPARE_TOKENS = 12, 16  # speech has 3 to 4 tokens a second; more is a decoder that repeats itself
PROMPT_TOKENS = 8  # room for start, language, task and timestamp tokens


@contextlib.contextmanager
def shorter_encoder(model: Any, encoder: Any, positions: int) -> Iterator[None]:
    """Reduce Whisper's encoder to its first `positions` positions (20 ms each) within the block.

    The encoder needs exactly as many frames as it has positions. The position embeddings are sinusoids from the start,
    so the first ones fit a shorter input.

    Args:
        model: its `config` holds the number of positions.
        encoder: of the model.
        positions: to keep; at most those of the encoder.
    """
    from torch.nn import Embedding

    from_pretrained: Any = Embedding.from_pretrained
    full, count = encoder.embed_positions, model.config.max_source_positions
    configs = {id(config): config for config in (model.config, encoder.config)}.values()
    try:
        encoder.embed_positions = from_pretrained(full.weight[:positions])
        for config in configs:
            config.max_source_positions = positions
        yield
    finally:
        encoder.embed_positions = full
        for config in configs:
            config.max_source_positions = count


class WhisperRecogniser:
    """Greedy decoding. Word times come from the cross-attention of the model's alignment heads, by time warping."""

    kind = "Whisper"
    pads = True  # to the window, as the model was trained
    frame_rate_hz = float(POSITIONS_PER_S)

    def __init__(
        self,
        model_id: str,
        device: str,
        sample_rate: int,
        language: str | None,
        window_s: float | None,
        times: bool,
        purpose: Purpose,
    ) -> None:
        module = transformers(purpose)
        self.model_id, self._device, self._input_rate, self._purpose = model_id, device, sample_rate, purpose
        self._extractor = load(
            purpose, "feature extractor of recogniser", model_id, module.AutoFeatureExtractor.from_pretrained
        )
        self._tokenizer = load(purpose, "tokenizer of recogniser", model_id, module.AutoTokenizer.from_pretrained)
        self._model = load_model(purpose, "recogniser", model_id, module.AutoModelForSpeechSeq2Seq, device)
        self._rate = model_rate(self._extractor, sample_rate)
        self.weights_id = weights_id(model_id, self._model)
        self.times = times and bool(getattr(self._model.generation_config, "alignment_heads", None))
        if self.times:
            with quiet():
                self._model.set_attn_implementation("eager")  # the other implementations don't return attention
        self._positions = self._window_positions(window_s)
        self.language: str | None = None
        self._options: dict[str, Any] = {"num_beams": 1, "do_sample": False}
        if getattr(self._model.generation_config, "is_multilingual", False):
            self.language = language
            self._options |= {"task": "transcribe"} | ({"language": language} if language else {})
        elif language not in (None, "en"):
            raise ArgumentError(f"--language {language!r}: {model_id} is English only")

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Transcription]:
        """Transcribe a batch of waveforms (samples,), each at most as long as the window."""
        waveforms = at_rate(waveforms, self._input_rate, self._rate)
        window = self._positions * self._rate // POSITIONS_PER_S
        longest = max(len(waveform) for waveform in waveforms)
        if longest > window:
            raise self._purpose.error(
                f"{self.model_id}: a segment of {longest / self._rate:.1f} s is longer than its window of "
                f"{window / self._rate:.1f} s; prepare shorter segments, or give a longer --asr-window"
            )
        limits = [self._most_tokens(len(waveform)) for waveform in waveforms]
        inputs = self._inputs(waveforms, padding="max_length", max_length=window)
        options = {"return_token_timestamps": True} if self.times else {}
        with shorter_encoder(self._model, self._model.model.encoder, self._positions):
            output = self._generate(inputs, max_new_tokens=max(limits), **options)
        tokens = output["sequences"] if self.times else output
        ends_s = output["token_timestamps"].tolist() if self.times else [None] * len(tokens)
        return [
            self._decode(row[:limit], row_ends_s, len(waveform) / self._rate)
            for row, limit, row_ends_s, waveform in zip(tokens.tolist(), limits, ends_s, waveforms, strict=True)
        ]

    def transcribe_long(self, waveform: Waveform) -> str:
        """Return the text of a waveform (samples,) of any length; beyond the window by long-form decoding.

        Long-form decoding (section 3.8) moves the window to the last timestamp that the model has written. The number
        of tokens is bounded by the model's own configuration only.
        """
        [waveform] = at_rate([waveform], self._input_rate, self._rate)
        is_long = len(waveform) > self._extractor.n_samples
        inputs = self._inputs([waveform], padding="longest" if is_long else "max_length", truncation=not is_long)
        options = {"return_timestamps": True} if is_long else {}
        output = self._generate(inputs, **options)
        return self._text(output[0].tolist())

    def _window_positions(self, window_s: float | None) -> int:
        most = int(self._model.config.max_source_positions)
        positions = most if window_s is None else round(window_s * POSITIONS_PER_S)
        if not 0 < positions <= most:
            raise ArgumentError(f"--asr-window {window_s} must be above 0 and at most {most / POSITIONS_PER_S} s")
        return positions

    def _inputs(self, waveforms: Sequence[Waveform], **options: Any) -> dict[str, Any]:
        features = self._extractor(
            list(waveforms), sampling_rate=self._rate, return_tensors="pt", return_attention_mask=True, **options
        ).to(self._device)
        return {"input_features": features["input_features"], "attention_mask": features["attention_mask"]}

    def _generate(self, inputs: dict[str, Any], **options: Any) -> Any:
        import torch

        with torch.inference_mode(), quiet():
            try:
                return self._model.generate(**inputs, **self._options, **options)
            except (ValueError, RuntimeError) as error:
                raise self._purpose.error(
                    f"{self.model_id}: fails as a recogniser ({first_line(error)}); use another one"
                ) from error

    def _most_tokens(self, samples: int) -> int:
        """Return a limit that only a decoder that repeats itself reaches; the same alone and in a batch."""
        tokens = SPARE_TOKENS + math.ceil(TOKENS_PER_S * samples / self._rate)
        return min(tokens, int(self._model.config.max_target_positions) - PROMPT_TOKENS)

    def _text(self, tokens: list[int]) -> str:
        return " ".join(self._tokenizer.decode(tokens, skip_special_tokens=True).split())

    def _decode(self, tokens: list[int], ends_s: list[float] | None, duration_s: float) -> Transcription:
        text = self._text(tokens)
        frames = math.ceil(round(duration_s * POSITIONS_PER_S, 6))
        words = None if ends_s is None else self._timed_words(tokens, ends_s, duration_s)
        # Scripts without spaces, or bytes that make no character alone: the words don't add up to the text
        if words is None or " ".join(word.text for word in words) != text:
            words = distribute_words(text, 0.0, duration_s)
        return Transcription(text, tuple(words), frames)

    def _timed_words(self, tokens: list[int], ends_s: list[float], duration_s: float) -> list[Word]:
        """Join tokens to words.

        transformers returns the end of each token except the first one, which shares the time of the second.
        """
        special = set(self._tokenizer.all_special_ids)
        pieces = [
            (self._tokenizer.decode([token]), end_s)
            for token, end_s in zip(tokens, ends_s, strict=False)
            if token not in special
        ]
        if len(pieces) > 1 and pieces[0][1] == 0:
            first, second = len(pieces[0][0]), len(pieces[1][0])
            pieces[0] = (pieces[0][0], pieces[1][1] * first / max(first + second, 1))
        elif pieces:
            pieces[0] = (pieces[0][0], pieces[0][1] or duration_s)
        words: list[Word] = []
        start_s = 0.0
        for piece, end in pieces:
            end_s = min(max(end, start_s), duration_s)
            if words and not piece.startswith(" "):
                words[-1] = Word(words[-1].text + piece.strip(), words[-1].start_s, end_s)
            elif piece.strip():
                words.append(Word(piece.strip(), start_s, end_s))
            start_s = end_s
        return words
