"""The speech model (SM) teacher: HuBERT, wav2vec 2.0, WavLM and their kin, and the encoder of Whisper."""

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
from dmcodec.pretrained.recognisers import SAMPLES_PER_POSITION, shortened

Waveform = NDArray[np.float32]
_PROBE_S = (1, 3)


class SpeechModel:
    """Features of speech.

    Attributes:
        width: of the features.
        frame_rate_hz: measured on the model's own output.
        pads: whether waveforms of different lengths may share a batch without changing anybody's features. Models
            that normalise over time (HuBERT base, wav2vec 2.0 base) see the padding, as does Whisper.
    """

    def __init__(self, model_id: str, layer: str, device: str, sample_rate: int) -> None:
        """Loads a model.

        Raises:
            TeacherError: it can't be loaded, wants another sample rate, or isn't a speech model.
        """
        module = transformers()
        self.model_id, self.layer, self._device, self._rate = model_id, layer, device, sample_rate
        self._extractor = load("a feature extractor", model_id, module.AutoFeatureExtractor.from_pretrained)
        model = load_model("speech model", model_id, module.AutoModel, device)
        self.weights_id = weights_id(model_id, model)
        self._whisper = model.config.model_type == "whisper"
        self._model = model.get_encoder() if model.config.is_encoder_decoder else model
        wanted = getattr(self._extractor, "sampling_rate", sample_rate)
        if wanted != sample_rate:
            raise TeacherError(f"{model_id}: wants audio at {wanted} Hz, but the data are at {sample_rate} Hz")
        config = self._model.config
        by_frame = getattr(config, "feat_extract_norm", None) == "layer"
        lengths = hasattr(self._model, "_get_feat_extract_output_lengths")
        self.pads = by_frame and lengths and bool(getattr(self._extractor, "return_attention_mask", False))
        probes = [np.random.default_rng(0).normal(0, 0.1, seconds * sample_rate) for seconds in _PROBE_S]
        frames = []
        for probe in probes:
            states = self._run([probe.astype(np.float32)])
            check_layer("--sm-layer", layer, len(states.hidden_states), model_id)
            frames.append(batch_hidden_states(states, layer).shape[1])
            self.width = int(states.hidden_states[-1].shape[-1])
        self.frame_rate_hz = round((frames[1] - frames[0]) / (_PROBE_S[1] - _PROBE_S[0]), 3)
        if self.frame_rate_hz <= 0:
            raise TeacherError(f"{model_id}: gives as many frames for {_PROBE_S[1]} s as for {_PROBE_S[0]} s")

    def features(self, waveforms: Sequence[Waveform]) -> list[NDArray[np.float32]]:
        """Runs a batch.

        Args:
            waveforms: (samples,) each; of one length unless `pads`.

        Returns:
            (frames, width) each.
        """
        found = batch_hidden_states(self._run(waveforms), self.layer).cpu().numpy()
        if len({len(waveform) for waveform in waveforms}) == 1:
            return list(found)
        return [each[: self._num_frames(len(waveform))] for each, waveform in zip(found, waveforms, strict=True)]

    def _num_frames(self, samples: int) -> int:
        import torch

        return int(self._model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def _run(self, waveforms: Sequence[Waveform]) -> Any:
        import torch

        arguments: dict[str, Any] = {"sampling_rate": self._rate, "return_tensors": "pt", "padding": True}
        if self.pads:
            arguments["return_attention_mask"] = True
        if self._whisper:
            arguments["truncation"] = False  # else it silently cuts at 30 s
        with torch.inference_mode(), quiet():
            try:
                inputs = self._extractor(list(waveforms), **arguments).to(self._device)
                if self._whisper:
                    return self._run_whisper(inputs["input_features"])
                return self._model(**inputs, output_hidden_states=True)
            except (RuntimeError, ValueError, TypeError) as error:
                reason = first_line(error)
                raise TeacherError(f"{self.model_id}: fails as a speech model ({reason})") from error

    def _run_whisper(self, mel: Any) -> Any:
        positions = (mel.shape[-1] + 1) // 2
        most = self._model.config.max_source_positions
        if positions > most:
            raise TeacherError(
                f"{self.model_id}: takes at most {most * SAMPLES_PER_POSITION / 16000:.0f} s; prepare shorter segments"
            )
        mel = mel[..., : 2 * positions]
        if mel.shape[-1] < 2 * positions:  # an odd frame at the end, which the convolution would pad all the same
            mel = _pad_right(mel)
        with shortened(self._model, self._model, positions):
            return self._model(mel, output_hidden_states=True)


def _pad_right(mel: Any) -> Any:
    from torch.nn import functional

    return functional.pad(mel, (0, 1))
