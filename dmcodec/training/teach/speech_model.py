"""The speech model (SM) teacher: HuBERT, wav2vec 2.0, WavLM and similar models, or the encoder of Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import TeacherError, first_line
from dmcodec.pretrained.loading import TEACHING, load, load_model, quiet, transformers, weights_id
from dmcodec.pretrained.waveform_inputs import allows_padding, at_rate, model_rate, num_frames
from dmcodec.pretrained.whisper import POSITIONS_PER_S, shorter_encoder

from .layers import check_layer, select_layer

_PROBE_S = (1, 3)  # two durations, from which the frame rate is measured


class SpeechModel:
    """Computes features of speech.

    Attributes:
        width: of the features.
        frame_rate_hz: measured on the model's output.
        pads: whether waveforms in a batch may differ in length without changing any features; false for models that
            normalise over time (HuBERT base, wav2vec 2.0 base), and for Whisper.
    """

    def __init__(self, model_id: str, layer: str, device: str, sample_rate: int) -> None:
        """Load a model.

        Args:
            model_id: id on the hub, or local folder.
            layer: "avg", "last", or the number of a hidden state.
            device: of torch.
            sample_rate: of the waveforms, in Hz; they are resampled where the model was trained at another one.

        Raises:
            TeacherError: the model can't be loaded, or is no speech model.
        """
        module = transformers(TEACHING)
        self.model_id, self.layer, self._device, self._input_rate = model_id, layer, device, sample_rate
        self._extractor = load(
            TEACHING, "feature extractor of speech model", model_id, module.AutoFeatureExtractor.from_pretrained
        )
        model = load_model(TEACHING, "speech model", model_id, module.AutoModel, device)
        self.weights_id = weights_id(model_id, model)
        self._whisper = model.config.model_type == "whisper"
        self._model = model.get_encoder() if model.config.is_encoder_decoder else model
        self._rate = model_rate(self._extractor, sample_rate)
        self.pads = allows_padding(self._model, self._extractor)
        self._measure()

    def _measure(self) -> None:
        """Set width and frame rate from the features of noise."""
        probes = [np.random.default_rng(0).normal(0, 0.1, seconds * self._rate) for seconds in _PROBE_S]
        frames = []
        for probe in probes:
            states = self._run([probe.astype(np.float32)])
            check_layer("--sm-layer", self.layer, len(states.hidden_states), self.model_id)
            frames.append(select_layer(states, self.layer).shape[1])
            self.width = int(states.hidden_states[-1].shape[-1])
        self.frame_rate_hz = round((frames[1] - frames[0]) / (_PROBE_S[1] - _PROBE_S[0]), 3)
        if self.frame_rate_hz <= 0:
            raise TeacherError(f"{self.model_id}: gives as many frames for {_PROBE_S[1]} s as for {_PROBE_S[0]} s")

    def features(self, waveforms: Sequence[Waveform]) -> list[NDArray[np.float32]]:
        """Compute the features of a batch.

        Args:
            waveforms: (samples,) each; of one length unless `pads`.

        Returns:
            Arrays (frames, width).

        Raises:
            TeacherError: the model fails.
        """
        waveforms = at_rate(waveforms, self._input_rate, self._rate)
        found = select_layer(self._run(waveforms), self.layer).cpu().numpy()
        if len({len(waveform) for waveform in waveforms}) == 1:
            return list(found)
        return [each[: num_frames(self._model, len(waveform))] for each, waveform in zip(found, waveforms, strict=True)]

    def _run(self, waveforms: Sequence[Waveform]) -> Any:
        import torch

        arguments: dict[str, Any] = {"sampling_rate": self._rate, "return_tensors": "pt", "padding": True}
        if self.pads:
            arguments["return_attention_mask"] = True
        if self._whisper:
            arguments["truncation"] = False  # by default it cuts at 30 s, without a message
        with torch.inference_mode(), quiet():
            try:
                inputs = self._extractor(list(waveforms), **arguments).to(self._device)
                if self._whisper:
                    return self._run_whisper(inputs["input_features"])
                return self._model(**inputs, output_hidden_states=True)
            except (RuntimeError, ValueError, TypeError) as error:
                raise TeacherError(
                    f"{self.model_id}: fails as a speech model ({first_line(error)}); use another one"
                ) from error

    def _run_whisper(self, mel: Any) -> Any:
        from torch.nn import functional

        positions = (mel.shape[-1] + 1) // 2
        most = int(self._model.config.max_source_positions)
        if positions > most:
            raise TeacherError(
                f"{self.model_id}: takes at most {most / POSITIONS_PER_S:.0f} s; prepare shorter segments"
            )
        mel = mel[..., : 2 * positions]
        if mel.shape[-1] < 2 * positions:  # an odd frame at the end, which the convolution pads anyway
            mel = functional.pad(mel, (0, 1))
        with shorter_encoder(self._model, self._model, positions):
            return self._model(mel, output_hidden_states=True)
