"""The configuration of a codec of the DM-Codec family, also as JSON.

DM-Codec, SpeechTokenizer and EnCodec are one network (SEANet, LSTM, RVQ) with different values of these fields.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint_files import config_file
from .convolutions import ConvPadding, Trim, trim
from .encodec_config import from_transformers, in_words_of_transformers
from .errors import ConfigError
from .text_files import read_text

MAX_CODEBOOK_SIZE = 65536  # codes are kept as uint16
MAX_N_Q = 255
KERNEL_SIZE = 7  # of the first and the last convolution of encoder and decoder


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """Hyper-parameters of the network, named as in the released configuration files.

    The defaults are those of the released DM-Codec models (arXiv 2410.15017): 16 kHz, 50 frames per second,
    8 codebooks of 1024 entries, 4 kbit/s. The fields from `causal` on tell other members of the family apart; files
    without them mean the defaults.

    Attributes:
        n_filters: channels of the first convolution; each stride doubles them.
        strides: of the decoder's transposed convolutions; the encoder's are in reverse order.
        dimension: of the latents.
        semantic_dimension: of `transform`; where it equals `dimension` there is none.
        bidirectional: whether the encoder's LSTM runs both ways. The decoder's runs forward.
        dilation_base: the dilation of residual layer j is dilation_base ** j.
        residual_kernel_size: of a residual block's first convolution.
        n_residual_layers: residual blocks at each stride.
        lstm_layers: of the encoder's and the decoder's LSTM.
        activation: "ELU".
        codebook_size: entries of each codebook.
        n_q: codebooks.
        sample_rate: in Hz.
        causal: whether convolutions are padded on the left only, so that they see no later samples.
        trim_right_ratio: share of a causal transposed convolution's trim that is at its right end, 0 to 1.
        compress: a residual block at C channels has C / compress inside.
        conv_shortcut: whether the shortcut of a residual block is a convolution; else it is the block's input.
        pad_mode: "reflect".
        norm: "weight_norm".
        bandwidths_kbps: bitrates in kbit/s that the codec was trained for; those of DM-Codec are all n_q.

    Raises:
        ConfigError: a value of another type, or out of range.
    """

    n_filters: int = 64
    strides: tuple[int, ...] = (8, 5, 4, 2)
    dimension: int = 1024
    semantic_dimension: int = 768
    bidirectional: bool = True
    dilation_base: int = 2
    residual_kernel_size: int = 3
    n_residual_layers: int = 1
    lstm_layers: int = 2
    activation: str = "ELU"
    codebook_size: int = 1024
    n_q: int = 8
    sample_rate: int = 16000
    causal: bool = False
    trim_right_ratio: float = 1.0
    compress: int = 2
    conv_shortcut: bool = True
    pad_mode: str = "reflect"
    norm: str = "weight_norm"
    bandwidths_kbps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", _strides(self.strides))
        for name in _INTEGERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
                raise ConfigError(f"configuration: {name} must be an integer from 1 to {_LARGEST}, not {value!r}")
        if self.hop_length > _LARGEST or self.n_filters * 2 ** len(self.strides) > _LARGEST:
            raise ConfigError(f"configuration: strides {list(self.strides)} make a network that is too large")
        for name in ("bidirectional", "causal", "conv_shortcut"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"configuration: {name} must be true or false, not {getattr(self, name)!r}")
        for name, only in _ONLY.items():
            if getattr(self, name) != only:
                raise ConfigError(
                    f"configuration: {name} {getattr(self, name)!r} is not supported; this family uses {only!r}"
                )
        if self.n_filters % self.compress:
            how = "even (residual blocks halve it)" if self.compress == 2 else f"a multiple of compress {self.compress}"
            raise ConfigError(f"configuration: n_filters must be {how}, not {self.n_filters}")
        if not _is_number(self.trim_right_ratio) or not 0 <= self.trim_right_ratio <= 1:
            raise ConfigError(f"configuration: trim_right_ratio must be 0 to 1, not {self.trim_right_ratio!r}")
        object.__setattr__(self, "trim_right_ratio", float(self.trim_right_ratio))
        if not 2 <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise ConfigError(
                f"configuration: codebook_size must be 2 to {MAX_CODEBOOK_SIZE}, not {self.codebook_size}"
            )
        if self.n_q > MAX_N_Q:
            raise ConfigError(f"configuration: n_q must be 1 to {MAX_N_Q}, not {self.n_q}")
        object.__setattr__(self, "bandwidths_kbps", _bandwidths(self.bandwidths_kbps))

    @property
    def is_plain(self) -> bool:
        """Whether the fields from `causal` on are DM-Codec's, so that an earlier dmcodec reads the configuration."""
        return all(getattr(self, name) == _LATER[name] for name in _LATER if name != "bandwidths_kbps")

    @property
    def lstm_channels(self) -> int:
        """Channels of the LSTMs."""
        return self.n_filters * 2 ** len(self.strides)

    @property
    def hop_length(self) -> int:
        """Samples per latent frame: the product of the strides."""
        return math.prod(self.strides)

    @property
    def frame_rate(self) -> float:
        """Latent frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def bits_per_code(self) -> int:
        """Bits of one packed code: ceil(log2(codebook_size))."""
        return bits_per_code(self.codebook_size)

    def bitrate_bps(self, n_q: int | None = None) -> float:
        """Return the bits per second of the codes at `n_q` levels (all by default)."""
        return self.frame_rate * self.bits_per_code * (self.n_q if n_q is None else n_q)

    @property
    def levels_of_bandwidth(self) -> dict[float, int]:
        """Number of levels for each of `bandwidths_kbps`: as many as its bits hold, at least 1."""
        bits = math.ceil(self.frame_rate) * self.bits_per_code
        return {kbps: max(1, min(self.n_q, math.floor(kbps * 1000 / bits))) for kbps in self.bandwidths_kbps}

    def padding(self, kernel_size: int, stride: int = 1, dilation: int = 1) -> ConvPadding:
        """Return the padding of a convolution of this codec."""
        return ConvPadding(kernel_size, stride, dilation, self.causal)

    def trim(self, stride: int) -> Trim:
        """Return the trim of this codec's transposed convolution of a stride, whose kernel is twice as long."""
        return trim(2 * stride, stride, self.causal, self.trim_right_ratio)

    def num_frames(self, num_samples: int) -> int:
        """Return the latent frames of `num_samples` samples: ceil(num_samples / hop_length)."""
        return -(-num_samples // self.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values; of the fields from `causal` on those that differ from DM-Codec's."""
        values = {**dataclasses.asdict(self), "strides": list(self.strides)}
        values["bandwidths_kbps"] = list(self.bandwidths_kbps)
        return {name: value for name, value in values.items() if getattr(self, name) != _LATER.get(name, _REQUIRED)}

    @classmethod
    def from_dict(cls, values: Any, source: str = "configuration") -> CodecConfig:
        """Read a configuration from JSON values; `source` names them in errors.

        All fields up to `sample_rate` are required, so that a misspelt one does not get its default. Other keys are
        ignored: released configuration files also hold training settings. A configuration of transformers, which has
        `model_type`, is converted: see `dmcodec.encodec_config`.

        Raises:
            ConfigError: a field is missing or out of range, or the codec is not of this family.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: expected a JSON object with the fields of a codec configuration")
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in values and name not in _LATER]
        of_transformers = "model_type" in values and bool(missing)
        if of_transformers:
            values = from_transformers(values, source)
        elif missing:
            raise ConfigError(f"{source}: missing {', '.join(missing)}")
        try:
            return cls(**{name: values[name] for name in names if name in values})
        except ConfigError as error:
            message = in_words_of_transformers(str(error)) if of_transformers else str(error)
            raise ConfigError(message.replace("configuration", source, 1)) from None

    @classmethod
    def from_json(cls, path: str | Path) -> CodecConfig:
        """Read a configuration from a JSON file, or from config.json in a folder.

        Raises:
            CheckpointNotFoundError: no such file.
            ConfigError: a folder without config.json, not JSON, or a field is missing or out of range.
        """
        path = config_file(path)
        return cls.from_dict(read_json_config(path), source=str(path))


def read_json_config(path: Path) -> Any:
    """Read the JSON value of a configuration file; ConfigError where it is not JSON."""
    try:
        text = read_text(path)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror or error}); check the rights") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; name a configuration, a JSON file") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: not JSON; name a configuration file") from None


def bits_per_code(codebook_size: int) -> int:
    """Return the bits of one packed code: ceil(log2(codebook_size))."""
    return (codebook_size - 1).bit_length()


_LARGEST = 1 << 20  # far above any network of this family; a larger value is a mistake
_INTEGERS = [field.name for field in dataclasses.fields(CodecConfig) if field.type == "int"]
# Fields with one value that is supported.
_ONLY = {"activation": "ELU", "pad_mode": "reflect", "norm": "weight_norm"}
_REQUIRED = object()  # equals no value
# Fields that came later than the released configuration files, and their defaults there.
_LATER: Mapping[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(CodecConfig)
    if field.name in ("causal", "trim_right_ratio", "compress", "conv_shortcut", "pad_mode", "norm", "bandwidths_kbps")
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _bandwidths(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)) or not all(_is_number(each) and each > 0 for each in value):
        raise ConfigError(f"configuration: bandwidths_kbps must be a list of positive numbers, not {value!r}")
    return tuple(float(each) for each in value)


def _strides(value: Any) -> tuple[int, ...]:
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    if not is_list or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in value):
        raise ConfigError(f"configuration: strides must be a list of positive integers, not {value!r}")
    return tuple(value)
