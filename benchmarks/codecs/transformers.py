"""Codecs of the package transformers (EnCodec, DAC, Mimi, X-Codec, ...) measured in eager torch, as it runs them."""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ArgumentError, AudioError, PretrainedModelError, TokensError, first_line
from dmcodec.pretrained.loading import Purpose, load, load_model, package_version, transformers
from dmcodec.sample import speech

from .checkpoint import MAX_DURATION_S

PREFIX = "transformers:"
_PURPOSE = Purpose("a codec of transformers", "evaluate", PretrainedModelError, PretrainedModelError)
_SETTINGS = "preprocessor_config.json"
_NO_CODEC = "name an audio codec, such as facebook/encodec_24khz"
# Parameters of `encode` that choose the number of levels.
_LEVELS, _BANDWIDTH = ("num_quantizers", "n_quantizers"), "bandwidth"
_PROBE_FRAMES = 4


def is_transformers(source: object) -> bool:
    """Return whether the name of a codec is `transformers:` and the id or the folder of a model."""
    return str(source).startswith(PREFIX)


def model_name(source: object) -> str:
    """Return the id or the folder after `transformers:`."""
    return str(source).removeprefix(PREFIX)


def short_name(source: object) -> str:
    """Return the last part of the id or of the folder after `transformers:`."""
    return Path(os.path.abspath(_folder_or_id(model_name(source)))).name  # noqa: PTH100 - of "." and "..", too


def result_name(source: object) -> str:
    """Return the name in results: `transformers:` and the id on the hub, or the folder's name without its parents."""
    name = model_name(source)
    return f"{PREFIX}{short_name(source) if os.path.isdir(_folder_or_id(name)) else name}"  # noqa: PTH112 - ids


class TransformersCodec:
    """A codec of transformers, in float32 and without gradients. Implements `MeasuredCodec`.

    The number of levels is chosen as the model has it: by that number, or by the smallest bandwidth that has them.
    The model is tried on a few frames when it is opened.

    Attributes:
        bandwidths: of models that offer bandwidths: in kbit/s, and the number of levels of each.
    """

    def __init__(self, source: str, model: Any, sample_rate: int, device: str = "cpu") -> None:
        config = model.config
        self.source = source
        self.name = result_name(source)
        self.sample_rate = sample_rate
        self.hop_length = _hop_length(config, sample_rate, source)
        self.frame_rate = sample_rate / self.hop_length
        self.codebook_size = _positive(config, "codebook_size", source)
        self._model, self._device = model, device
        self._sample = speech(_PROBE_FRAMES * self.hop_length, sample_rate)[None, None]
        self._parameters = inspect.signature(model.encode).parameters
        self._scaled = "audio_scales" in inspect.signature(model.decode).parameters
        try:
            self._pads_itself = self._takes_any_length()
            self.bandwidths = self._levels_by_bandwidth()
            self.n_q = self._count_levels()
        except Exception as error:
            raise PretrainedModelError(
                f"{source}: a {type(model).__name__} does not encode and decode mono speech through codes; {_NO_CODEC}"
            ) from error
        self.description = self._describe()

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode [B, 1, samples] to codes [n_q, B, frames]; see `MeasuredCodec.encode`."""
        samples, wanted = waveforms.shape[-1], n_q or self.n_q
        if samples > MAX_DURATION_S * self.sample_rate:
            raise AudioError(
                f"longer than {MAX_DURATION_S:g} s: transformers runs a clip in one piece; cut it into shorter ones"
            )
        frames = -(-samples // self.hop_length)
        if not self._pads_itself:
            waveforms = np.pad(waveforms, ((0, 0), (0, 0), (0, frames * self.hop_length - samples)))
        try:
            codes = self._run(self._encode, waveforms, wanted)
        except Exception as error:
            raise AudioError(f"{self.source} can't encode {samples:,} samples ({first_line(error)})") from error
        if codes.shape[0] < wanted or codes.shape[2] != frames:
            raise AudioError(
                f"{self.source} made {codes.shape[0]} levels of {codes.shape[2]} frames of {samples:,} samples, "
                f"not {wanted} of {frames}"
            )
        return codes[:wanted]

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode codes [n_q, B, frames] to [B, 1, frames * hop_length]; see `MeasuredCodec.decode`.

        A model that makes fewer samples (DAC: up to one for each odd stride and level of upsampling) ends in zeros.
        """
        try:
            audio = self._run(self._decode, codes)
        except Exception as error:
            raise TokensError(f"{self.source} can't decode {codes.shape[2]:,} frames ({first_line(error)})") from error
        samples = codes.shape[2] * self.hop_length
        return np.pad(audio[..., :samples], ((0, 0), (0, 0), (0, max(0, samples - audio.shape[2]))))

    def _encode(self, waveforms: Any, n_q: int | None) -> Any:
        codes = self._model.encode(waveforms, **self._choice(n_q)).audio_codes
        if codes.ndim == 4 and codes.shape[0] == 1:  # EnCodec: [pieces, B, n_q, frames]
            codes = codes[0]
        return codes.transpose(0, 1)

    def _decode(self, codes: Any) -> Any:
        codes = codes.transpose(0, 1)
        options = {"audio_codes": codes[None], "audio_scales": [None]} if self._scaled else {"audio_codes": codes}
        audio = self._model.decode(**options).audio_values
        return audio[:, None] if audio.ndim == 2 else audio  # DAC: [B, samples]

    def _choice(self, n_q: int | None) -> Mapping[str, Any]:
        """Return the argument that makes `encode` compute at least `n_q` levels; None: whatever it does by default."""
        if n_q is None:
            return {}
        if _BANDWIDTH in self._parameters:
            return {_BANDWIDTH: min(kbits for kbits, levels in self.bandwidths.items() if levels >= n_q)}
        return {name: n_q for name in _LEVELS if name in self._parameters}

    def _run(self, compute: Callable[..., Any], array: NDArray[Any], *arguments: Any) -> NDArray[Any]:
        """Compute from host memory to host memory, without gradients."""
        import torch

        with torch.inference_mode():
            result = compute(torch.from_numpy(np.ascontiguousarray(array)).to(self._device), *arguments)
            found: NDArray[Any] = result.cpu().numpy()
        return found

    def _takes_any_length(self) -> bool:
        """Return whether a part of a frame at the end becomes a frame; else `encode` pads with zeros.

        transformers' own extractors do the same: that of DAC and X-Codec pads to whole frames, that of EnCodec and Mimi
        does not.
        """
        waveforms = self._sample[..., : (_PROBE_FRAMES - 1) * self.hop_length + 1]
        try:
            return self._run(self._encode, waveforms, None).shape[2] == _PROBE_FRAMES
        except Exception:  # noqa: BLE001 - models that need whole frames raise any kind of error
            return False

    def _levels_by_bandwidth(self) -> Mapping[float, int]:
        """Return the number of levels of each bandwidth in kbit/s, as the model computes them; empty without them."""
        if _BANDWIDTH not in self._parameters:
            return {}
        offered = getattr(self._model.config, "target_bandwidths", None) or ()
        return {kbits: self._run(self._encode_at, self._sample, kbits).shape[-2] for kbits in offered}

    def _encode_at(self, waveforms: Any, kbits: float) -> Any:
        return self._model.encode(waveforms, bandwidth=kbits).audio_codes

    def _count_levels(self) -> int:
        """Run the model once, and return the number of its levels; raise any error where it is no codec."""
        codes = self._run(self._encode, self._sample, max(self.bandwidths.values(), default=None))
        audio = self._run(self._decode, codes)
        if codes.ndim != 3 or codes.shape[1:] != (1, _PROBE_FRAMES) or audio.shape[:2] != (1, 1):
            raise ValueError(f"codes of shape {codes.shape}, and audio of shape {audio.shape}")
        return int(codes.shape[0])

    def _describe(self) -> str:
        choice = ""
        if self.bandwidths:
            kbits = ", ".join(f"{value:g}" for value in self.bandwidths)
            levels = ", ".join(f"{value:g}" for value in self.bandwidths.values())
            choice = f", bandwidths {kbits} kbit/s are n_q {levels}"
        return (
            f"{type(self._model).__name__} of transformers {package_version('transformers')}, torch, fp32, "
            f"{self._device}, {self.sample_rate:,} Hz, {self.frame_rate:g} frames a second, {self.n_q} levels{choice}"
        )


def open_transformers(source: str, device: str = "cpu") -> TransformersCodec:
    """Load a codec of transformers.

    Args:
        source: `transformers:` and the model's id on the hub or its folder.
        device: of torch.

    Raises:
        ArgumentError: `source` names no model.
        PretrainedModelError: no such model, it can't be loaded, or it is no codec for mono speech.
        MissingDependencyError: transformers or torch is not installed.
    """
    package = import_transformers()
    name = _folder_or_id(model_name(source))
    if not name.strip():
        raise ArgumentError(f"{source!r} names no model; give its folder, or its id, as in {PREFIX}kyutai/mimi")
    config = load(_PURPOSE, "codec", name, package.AutoConfig.from_pretrained, trust_remote_code=False)
    _check_kind(package, config, source)
    sample_rate = _sample_rate(package, name, config, source)
    model = load_model(_PURPOSE, "codec", name, package.AutoModel, device)
    return TransformersCodec(source, model, sample_rate, device)


def import_transformers() -> Any:
    """Return the module transformers.

    Raises:
        MissingDependencyError: transformers or torch is not installed.
    """
    return transformers(_PURPOSE)


def weights_file(source: str) -> Path | None:
    """Return the file with the weights of a model that was loaded; None where they are in several files."""
    from transformers.utils.hub import cached_file

    name = _folder_or_id(model_name(source))
    for file in ("model.safetensors", "pytorch_model.bin"):
        try:
            found = cached_file(name, file, local_files_only=True)
        except OSError:
            continue
        if found is not None:
            return Path(found)
    return None


def _folder_or_id(name: str) -> str:
    return os.path.expanduser(name) if name.startswith("~") else name  # noqa: PTH111 - ids are not paths


def _check_kind(package: Any, config: Any, source: str) -> None:
    """Raise PretrainedModelError for models that are no codecs for mono speech, before their weights are fetched."""
    kind = package.MODEL_MAPPING.get(type(config), None)
    if not (hasattr(kind, "encode") and hasattr(kind, "decode")):
        raise PretrainedModelError(f"{source}: is a model of type {config.model_type}, not a codec; {_NO_CODEC}")
    needed = [
        name
        for name, parameter in inspect.signature(kind.encode).parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if needed[1:] != ["input_values"] or "audio_codes" not in inspect.signature(kind.decode).parameters:
        raise PretrainedModelError(
            f"{source}: a {kind.__name__} does not encode and decode mono speech through codes; {_NO_CODEC}"
        )
    if (channels := getattr(config, "audio_channels", 1)) != 1:
        raise PretrainedModelError(f"{source}: is for {channels} channels, mono codecs are measured; {_NO_CODEC}")
    if getattr(config, "normalize", False) or getattr(config, "chunk_length_s", None):
        raise PretrainedModelError(
            f"{source}: cuts clips into pieces or normalises their level, and so needs more than its codes to decode; "
            f"{_NO_CODEC}"
        )


def _sample_rate(package: Any, name: str, config: Any, source: str) -> int:
    """Return the sample rate in Hz of the model's extractor, or else of its configuration.

    Raises:
        PretrainedModelError: neither names one, they differ, or the file of the extractor is damaged.
    """
    of_config = next((rate for key in ("sampling_rate", "sample_rate") if (rate := getattr(config, key, None))), None)
    try:
        settings, _ = package.FeatureExtractionMixin.get_feature_extractor_dict(name)
    except (OSError, json.JSONDecodeError) as error:
        if (Path(name) / _SETTINGS).exists():
            raise PretrainedModelError(
                f"{source}: its {_SETTINGS} is damaged; fetch it again, or delete it: the rate is in config.json, too"
            ) from error
        settings = {}
    rate = settings.get("sampling_rate") or of_config
    if not isinstance(rate, int) or rate < 1:
        raise PretrainedModelError(f"{source}: neither its {_SETTINGS} nor its config.json names a sample rate in Hz")
    if of_config not in (None, rate):
        raise PretrainedModelError(
            f"{source}: is for {of_config} Hz in its config.json, and for {rate} Hz in its {_SETTINGS}; correct the "
            "wrong one"
        )
    return rate


def _hop_length(config: Any, sample_rate: int, source: str) -> int:
    """Return the samples of one frame."""
    for name in ("hop_length", "frame_size"):  # frame_size: Mimi's
        if getattr(config, name, None):
            return _positive(config, name, source)
    frame_rate = getattr(config, "frame_rate", None)
    if isinstance(frame_rate, (int, float)) and frame_rate > 0 and math.isclose(sample_rate % frame_rate, 0):
        return round(sample_rate / frame_rate)
    raise PretrainedModelError(f"{source}: its configuration has no number of samples in a frame; {_NO_CODEC}")


def _positive(config: Any, name: str, source: str) -> int:
    value = getattr(config, name, None)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PretrainedModelError(f"{source}: {name} of its configuration is {value!r}, not a positive whole number")
    return value
