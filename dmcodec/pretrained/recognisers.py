"""Recognisers that write the transcript, with the words' times: CTC models and Whisper's kind."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ArgumentError, TeacherError, first_line

from .loading import load, load_model, quiet, transformers, weights_id

# FOLDED: Whisper on less than 30 seconds: its encoder wants exactly as many frames as it has positions.


Waveform = NDArray[np.float32]
TOKENS_PER_S, SPARE_TOKENS = 12, 16  # speech has 3 to 4 tokens a second; more is a decoder that repeats itself
SAMPLES_PER_POSITION = 320  # 10 ms of hop, halved by the second convolution
MAX_POSITIONS_PER_S = 50


@contextlib.contextmanager
def shortened(model: Any, encoder: Any, positions: int) -> Iterator[None]:
    """Leaves the encoder only its first `positions` positions (20 ms each) while the block runs.

    Positions are sinusoids from the start, so the first ones serve a shorter input as they are.

    Args:
        model: whose `config` says how many positions there are.
        encoder: of the model.
        positions: to keep; at most those it has.
    """
    from torch.nn import Embedding

    make: Any = Embedding.from_pretrained
    full, count = encoder.embed_positions, model.config.max_source_positions
    kept = make(full.weight[:positions])
    configs = {id(config): config for config in (model.config, encoder.config)}.values()
    try:
        encoder.embed_positions = kept
        for config in configs:
            config.max_source_positions = positions
        yield
    finally:
        encoder.embed_positions = full
        for config in configs:
            config.max_source_positions = count


@dataclass(frozen=True)
class Heard:
    """What a recogniser made of one waveform.

    Attributes:
        text: the transcript; "" where it heard nothing.
        words: with times; spread over the waveform by their characters where the recogniser knows none.
        num_frames: of the recogniser's output for the waveform itself, without padding.
    """

    text: str
    words: tuple[Word, ...]
    num_frames: int


class Recogniser(Protocol):
    """Transcribes batches; `pads` says whether lengths may differ within one."""

    model_id: str
    weights_id: str
    frame_rate_hz: float
    times: bool
    pads: bool

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Heard]: ...


def load_recogniser(
    model_id: str, device: str, sample_rate: int, language: str | None = None, window_s: float | None = None
) -> Recogniser:
    """Loads a CTC or a Whisper recogniser, whichever `model_id` is.

    Args:
        model_id: id on the hub, or local folder.
        device: where it runs.
        sample_rate: of the waveforms, in Hz.
        language: of the speech, for multilingual Whisper models; None lets the model find out, clip by clip.
        window_s: of Whisper; None is its own 30 s, and shorter is faster.

    Raises:
        TeacherError: it can't be loaded, is no recogniser, or wants another sample rate.
    """
    module = transformers()
    config = load("a configuration", model_id, module.AutoConfig.from_pretrained)
    if config.model_type == "whisper":
        return WhisperRecogniser(model_id, device, sample_rate, language, window_s)
    if language or window_s:
        raise ArgumentError(f"--language and --asr-window are for Whisper models; {model_id} is a {config.model_type}")
    return CtcRecogniser(model_id, device, sample_rate)


class CtcRecogniser:
    """Best path of a CTC model; times are those of the frames that spell the word."""

    times = True

    def __init__(self, model_id: str, device: str, sample_rate: int) -> None:
        module = transformers()
        self.model_id, self._device, self._rate = model_id, device, sample_rate
        self._model = load_model("CTC recogniser", model_id, module.AutoModelForCTC, device)
        self._processor = load("a processor", model_id, module.AutoProcessor.from_pretrained)
        self._extractor, self._tokenizer = self._processor.feature_extractor, self._processor.tokenizer
        _check_rate(model_id, self._extractor, sample_rate)
        self.weights_id = weights_id(model_id, self._model)
        by_frame = getattr(self._model.config, "feat_extract_norm", None) == "layer"
        lengths = hasattr(self._model, "_get_feat_extract_output_lengths")
        self.pads = by_frame and lengths and bool(getattr(self._extractor, "return_attention_mask", False))
        ratio = getattr(self._model.config, "inputs_to_logits_ratio", None)
        if not ratio:
            raise TeacherError(f"{model_id}: doesn't say how many samples a frame has; use another recogniser")
        self._samples_per_frame = int(ratio)
        self.frame_rate_hz = sample_rate / self._samples_per_frame

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Heard]:
        """Transcribes (samples,) each."""
        import torch

        arguments: dict[str, Any] = {"sampling_rate": self._rate, "return_tensors": "pt", "padding": True}
        if self.pads:
            arguments["return_attention_mask"] = True
        with torch.inference_mode(), quiet():
            logits = self._model(**self._extractor(list(waveforms), **arguments).to(self._device)).logits
        if not torch.isfinite(logits).all():
            raise TeacherError(f"{self.model_id}: gives NaN or infinite values")
        ids = logits.argmax(dim=-1).cpu()
        same = len({len(waveform) for waveform in waveforms}) == 1
        frames = [ids.shape[1] if same else self._num_frames(len(waveform)) for waveform in waveforms]
        return [self._read(row[:count]) for row, count in zip(ids, frames, strict=True)]

    def _num_frames(self, samples: int) -> int:
        import torch

        return int(self._model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def _read(self, ids: Any) -> Heard:
        decoded = self._tokenizer.decode(ids, output_word_offsets=True)
        seconds = self._samples_per_frame / self._rate
        words = tuple(
            Word(offset["word"], float(offset["start_offset"] * seconds), float(offset["end_offset"] * seconds))
            for offset in decoded.word_offsets
            if offset["word"].strip()
        )
        return Heard(" ".join(decoded.text.split()), words, len(ids))


class WhisperRecogniser:
    """Greedy decoding; times from the cross-attention of the model's alignment heads, by dynamic time warping."""

    pads = True  # to the window, as the model was trained
    frame_rate_hz = float(MAX_POSITIONS_PER_S)

    def __init__(
        self, model_id: str, device: str, sample_rate: int, language: str | None, window_s: float | None
    ) -> None:
        module = transformers()
        self.model_id, self._device, self._rate = model_id, device, sample_rate
        model = load_model("Whisper recogniser", model_id, module.AutoModelForSpeechSeq2Seq, device)
        self._processor = load("a processor", model_id, module.AutoProcessor.from_pretrained)
        _check_rate(model_id, self._processor.feature_extractor, sample_rate)
        self.weights_id = weights_id(model_id, model)
        self._model = model
        self.times = bool(getattr(model.generation_config, "alignment_heads", None))
        if self.times:
            with quiet():
                model.set_attn_implementation("eager")  # the others don't give out their attention
        most = model.config.max_source_positions
        self._positions = most if window_s is None else round(window_s * MAX_POSITIONS_PER_S)
        if not 0 < self._positions <= most:
            raise ArgumentError(f"--asr-window {window_s} must be above 0 and at most {most / MAX_POSITIONS_PER_S} s")
        self._options: dict[str, Any] = {"return_token_timestamps": True} if self.times else {}
        if getattr(model.generation_config, "is_multilingual", False):
            self._options |= {"task": "transcribe"} | ({"language": language} if language else {})
        elif language not in (None, "en"):
            raise ArgumentError(f"--language {language!r}: {model_id} knows English only")

    def transcribe(self, waveforms: Sequence[Waveform]) -> list[Heard]:
        """Transcribes (samples,) each, of at most the window."""
        import torch

        window = self._positions * self._rate // MAX_POSITIONS_PER_S
        longest = max(len(waveform) for waveform in waveforms)
        if longest > window:
            raise TeacherError(
                f"{self.model_id}: a segment of {longest / self._rate:.1f} s is longer than its window of "
                f"{window / self._rate:.1f} s; prepare shorter segments, or give a longer --asr-window"
            )
        most = [self._most_tokens(len(waveform)) for waveform in waveforms]
        with torch.inference_mode(), quiet(), shortened(self._model, self._model.model.encoder, self._positions):
            inputs = self._processor.feature_extractor(
                list(waveforms),
                sampling_rate=self._rate,
                return_tensors="pt",
                padding="max_length",
                max_length=window,
                return_attention_mask=True,
            ).to(self._device)
            try:
                found = self._model.generate(
                    inputs["input_features"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=max(most),
                    do_sample=False,
                    num_beams=1,
                    **self._options,
                )
            except (ValueError, RuntimeError) as error:
                reason = first_line(error)
                raise TeacherError(f"{self.model_id}: fails as a recogniser ({reason})") from error
        tokens = found["sequences"] if self.times else found
        ends = found["token_timestamps"].tolist() if self.times else [None] * len(tokens)
        return [
            self._read(row[:count], ends_s, len(waveform) / self._rate)
            for row, count, ends_s, waveform in zip(tokens.tolist(), most, ends, waveforms, strict=True)
        ]

    def _most_tokens(self, samples: int) -> int:
        """So many that only a decoder that repeats itself gets there; the same alone and in a batch."""
        wanted = SPARE_TOKENS + math.ceil(TOKENS_PER_S * samples / self._rate)
        return int(min(wanted, self._model.config.max_target_positions - 8))

    def _read(self, tokens: list[int], ends_s: list[float] | None, duration_s: float) -> Heard:
        tokenizer = self._processor.tokenizer
        text = " ".join(tokenizer.decode(tokens, skip_special_tokens=True).split())
        frames = math.ceil(round(duration_s * MAX_POSITIONS_PER_S, 6))
        words = None if ends_s is None else self._timed(tokens, ends_s, duration_s)
        # Scripts without spaces, or bytes that make no character alone: the words don't add up to the text
        if words is None or " ".join(word.text for word in words) != text:
            words = spread(text, 0.0, duration_s)
        return Heard(text, tuple(words), frames)

    def _timed(self, tokens: list[int], ends_s: list[float], duration_s: float) -> list[Word]:
        """Joins tokens to words.

        transformers gives the time at which each token ends, but none for the first, which shares the second's.
        """
        tokenizer = self._processor.tokenizer
        special = set(tokenizer.all_special_ids)
        pieces = [
            (tokenizer.decode([token]), end_s)
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


def _check_rate(model_id: str, extractor: Any, sample_rate: int) -> None:
    if extractor.sampling_rate != sample_rate:
        raise TeacherError(f"{model_id}: wants audio at {extractor.sampling_rate} Hz, the data are at {sample_rate} Hz")


@dataclass(frozen=True)
class Word:
    """A word and when it is said."""

    text: str
    start_s: float
    end_s: float


def spread(text: str, start_s: float, end_s: float) -> list[Word]:
    """Places the words of a text in a stretch of time, each with a share by its number of characters and one more."""
    words = text.split()
    total = sum(len(word) + 1 for word in words)
    placed, done = [], 0
    for word in words:
        begin = start_s + (end_s - start_s) * done / total
        done += len(word) + 1
        placed.append(Word(word, begin, start_s + (end_s - start_s) * done / total))
    return placed
