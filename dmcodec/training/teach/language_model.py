"""The language model (LM) teacher: representations of the tokens of a transcript, one per frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import TeacherError, first_line
from dmcodec.pretrained.loading import TEACHING, load, load_model, quiet, transformers, weights_id
from dmcodec.pretrained.transcription import Word

from .layers import check_layer, select_layer

_LEAST_TOKENS = 8  # tokens that a text is padded to at least, so that the special ones fit


class LanguageModel:
    """Computes features of text.

    Attributes:
        width: of the features.
        max_tokens: maximal length of a text.
    """

    def __init__(self, model_id: str, layer: str, device: str) -> None:
        """Load a model; TeacherError where it can't be loaded, or is no language model."""
        module = transformers(TEACHING)
        self.model_id, self.layer, self._device = model_id, layer, device
        self._tokenizer = load(TEACHING, "tokenizer of language model", model_id, module.AutoTokenizer.from_pretrained)
        model = load_model(TEACHING, "language model", model_id, module.AutoModel, device)
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
        """Return features in the paper's form (arXiv 2410.15017, section 3.2): one token per frame.

        Each text is padded with the padding token, or cut, to its number of frames. The rows follow the order of the
        tokens, not their time: the padding comes after the text.

        Args:
            texts: of the segments.
            num_frames: of each text.

        Returns:
            Arrays (num_frames, width).

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
                max_length=max(frames, _LEAST_TOKENS),
                truncation=True,
                return_tensors="pt",
            )
            states = select_layer(self._run(inputs), self.layer)[:, :frames].cpu().numpy()
            for index, each in zip(chosen, states, strict=True):
                found[index] = each
        return found

    def aligned(
        self, words: Sequence[Sequence[Word]], num_frames: Sequence[int], frame_rate_hz: float
    ) -> list[NDArray[np.float32]]:
        """Return features at the times of the words.

        The tokens of a word share its time equally. A frame gets the token in whose time its centre lies, and each word
        has at least one frame. Frames without a word are rows of zeros.

        Args:
            words: of each text.
            num_frames: of each text.
            frame_rate_hz: of the frames.

        Returns:
            Arrays (num_frames, width).

        Raises:
            TeacherError: the tokenizer does not return the positions of tokens in the text.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            raise TeacherError(
                f"{self.model_id}: its tokenizer does not return the positions of tokens in the text; leave out --align"
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
        states = select_layer(self._run(inputs), self.layer).cpu().numpy()
        masks = inputs["attention_mask"].cpu().numpy()
        return [
            _spread_tokens(state[mask > 0], positions[mask > 0], each, frames, frame_rate_hz)
            for state, mask, positions, each, frames in zip(states, masks, offsets, words, num_frames, strict=True)
        ]

    def _run(self, inputs: Any) -> Any:
        import torch

        with torch.inference_mode(), quiet():
            try:
                return self._model(**inputs.to(self._device), output_hidden_states=True)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                raise TeacherError(
                    f"{self.model_id}: fails as a language model ({first_line(error)}); use another one"
                ) from error


def _spread_tokens(
    states: NDArray[np.float32],
    offsets: NDArray[np.int64],
    words: Sequence[Word],
    num_frames: int,
    frame_rate_hz: float,
) -> NDArray[np.float32]:
    """Return (num_frames, width): each word's token states over the frames of the word.

    Args:
        states: (tokens, width).
        offsets: (tokens, 2), first character and end of each token in the words joined by spaces.
        words: of the text.
        num_frames: of the result.
        frame_rate_hz: of the frames.
    """
    rows = np.zeros((num_frames, states.shape[1]), np.float32)
    begin = 0
    for word in words:
        end = begin + len(word.text)
        # The two offsets of a special token are equal. A token may include the space before its word.
        of_word = states[(offsets[:, 1] > begin) & (offsets[:, 1] <= end) & (offsets[:, 0] < offsets[:, 1])]
        begin = end + 1
        if not len(of_word) or not num_frames:
            continue
        first = min(max(int(np.ceil(word.start_s * frame_rate_hz - 0.5)), 0), num_frames - 1)
        last = min(max(int(np.ceil(word.end_s * frame_rate_hz - 0.5)), first + 1), num_frames)
        rows[first:last] = of_word[np.arange(last - first) * len(of_word) // (last - first)]
    return rows
