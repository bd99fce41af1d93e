"""The language model (LM) teacher: token representations of a transcript, one a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import TeacherError, first_line
from dmcodec.pretrained.loading import (
    batch_hidden_states,
    check_layer,
    load,
    load_model,
    quiet,
    transformers,
    weights_id,
)
from dmcodec.pretrained.recognisers import Word

_FEWEST = 8  # tokens that a text is padded to at least: room for the special ones


class LanguageModel:
    """Features of text.

    Attributes:
        width: of the features.
        max_tokens: that the model takes.
    """

    def __init__(self, model_id: str, layer: str, device: str) -> None:
        """Loads a model; TeacherError where it can't be loaded, or isn't a language model."""
        module = transformers()
        self.model_id, self.layer, self._device = model_id, layer, device
        self._tokenizer = load("a tokenizer", model_id, module.AutoTokenizer.from_pretrained)
        model = load_model("language model", model_id, module.AutoModel, device)
        self.weights_id = weights_id(model_id, model)
        self._model = model.get_encoder() if model.config.is_encoder_decoder else model
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        self._tokenizer.padding_side = "right"
        positions = getattr(model.config, "max_position_embeddings", None) or self._tokenizer.model_max_length
        self.max_tokens = min(int(positions), int(self._tokenizer.model_max_length))
        states = self._run(self._tokenizer(["a"], return_tensors="pt")).hidden_states
        check_layer("--lm-layer", layer, len(states), model_id)
        self.width = int(states[-1].shape[-1])

    def padded(self, texts: Sequence[str], num_frames: Sequence[int]) -> list[NDArray[np.float32]]:
        """The paper's form: each text padded with the padding token to its number of frames, or cut to it.

        The rows follow the tokens' order, not time: padding comes after the text, however slowly it was said.

        Returns:
            (num_frames, width) each.

        Raises:
            TeacherError: more frames than the model has positions.
        """
        longest = max(num_frames)
        if longest > self.max_tokens:
            raise TeacherError(
                f"{self.model_id}: a segment of {longest} frames needs more than its {self.max_tokens} positions; "
                "prepare shorter segments, or teach with --align"
            )
        found: list[NDArray[np.float32]] = [np.zeros((0, self.width), np.float32)] * len(texts)
        for frames in sorted(set(num_frames)):
            chosen = [index for index, count in enumerate(num_frames) if count == frames]
            inputs = self._tokenizer(
                [texts[index] for index in chosen],
                padding="max_length",
                max_length=max(frames, _FEWEST),
                truncation=True,
                return_tensors="pt",
            )
            states = batch_hidden_states(self._run(inputs), self.layer)[:, :frames].cpu().numpy()
            for index, each in zip(chosen, states, strict=True):
                found[index] = each
        return found

    def aligned(
        self, words: Sequence[Sequence[Word]], num_frames: Sequence[int], frame_rate_hz: float
    ) -> list[NDArray[np.float32]]:
        """Representations of the tokens over the time that their word takes.

        A word's time is shared equally among its tokens; a frame belongs to the token in whose time its centre lies,
        and each word has at least one frame. Frames without a word are rows of zeros.

        Args:
            words: of each text.
            num_frames: of each text.
            frame_rate_hz: of the frames.

        Returns:
            (num_frames, width) each.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            raise TeacherError(
                f"{self.model_id}: its tokenizer doesn't say where tokens lie in the text; leave out --align"
            )
        texts = [" ".join(word.text for word in each) for each in words]
        inputs = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        offsets = inputs.pop("offset_mapping").numpy()
        states = batch_hidden_states(self._run(inputs), self.layer).cpu().numpy()
        masks = inputs["attention_mask"].cpu().numpy()
        return [
            _spread(state[mask > 0], where[mask > 0], each, frames, frame_rate_hz)
            for state, mask, where, each, frames in zip(states, masks, offsets, words, num_frames, strict=True)
        ]

    def _run(self, inputs: Any) -> Any:
        import torch

        with torch.inference_mode(), quiet():
            try:
                return self._model(**inputs.to(self._device), output_hidden_states=True)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                reason = first_line(error)
                raise TeacherError(f"{self.model_id}: fails as a language model ({reason})") from error


def _spread(
    states: NDArray[np.float32],
    offsets: NDArray[np.int64],
    words: Sequence[Word],
    num_frames: int,
    frame_rate_hz: float,
) -> NDArray[np.float32]:
    rows = np.zeros((num_frames, states.shape[1]), np.float32)
    begin = 0
    for word in words:
        end = begin + len(word.text)
        # Special tokens lie nowhere: their offsets are equal. A token may take the space before its word along.
        of_word = states[(offsets[:, 1] > begin) & (offsets[:, 1] <= end) & (offsets[:, 0] < offsets[:, 1])]
        begin = end + 1
        if not len(of_word) or not num_frames:
            continue
        first = min(max(int(np.ceil(word.start_s * frame_rate_hz - 0.5)), 0), num_frames - 1)
        last = min(max(int(np.ceil(word.end_s * frame_rate_hz - 0.5)), first + 1), num_frames)
        rows[first:last] = of_word[np.arange(last - first) * len(of_word) // (last - first)]
    return rows
