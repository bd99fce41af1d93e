"""The configuration of a codec of the DM-Codec family, also as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from .checkpoint_files import config_file
from .errors import ConfigError
from .text_files import read_text

MAX_CODEBOOK_SIZE = 65536  # codes are kept as uint16
MAX_N_Q = 255
KERNEL_SIZE = 7  # of the first and the last convolution of encoder and decoder


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """Hyper-parameters of the network, named as in the released configuration files.

    The defaults are those of the released DM-Codec models (arXiv 2410.15017): 16 kHz, 50 frames per second,
    8 codebooks of 1024 entries, 4 kbit/s.

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

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", _strides(self.strides))
        for name in _INTEGERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
                raise ConfigError(f"configuration: {name} must be an integer from 1 to {_LARGEST}, not {value!r}")
        if self.hop_length > _LARGEST or self.n_filters * 2 ** len(self.strides) > _LARGEST:
            raise ConfigError(f"configuration: strides {list(self.strides)} make a network that is too large")
        if not isinstance(self.bidirectional, bool):
            raise ConfigError(f"configuration: bidirectional must be true or false, not {self.bidirectional!r}")
        if self.activation != "ELU":
            raise ConfigError(f"configuration: activation {self.activation!r} is not supported; this family uses 'ELU'")
        if self.n_filters % 2:
            raise ConfigError(f"configuration: n_filters must be even (residual blocks halve it), not {self.n_filters}")
        if not 2 <= self.codebook_size <= MAX_CODEBOOK_SIZE:
            raise ConfigError(
                f"configuration: codebook_size must be 2 to {MAX_CODEBOOK_SIZE}, not {self.codebook_size}"
            )
        if self.n_q > MAX_N_Q:
            raise ConfigError(f"configuration: n_q must be 1 to {MAX_N_Q}, not {self.n_q}")

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

    def num_frames(self, num_samples: int) -> int:
        """Return the latent frames of `num_samples` samples: ceil(num_samples / hop_length)."""
        return -(-num_samples // self.hop_length)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {**dataclasses.asdict(self), "strides": list(self.strides)}

    @classmethod
    def from_dict(cls, values: Any, source: str = "configuration") -> CodecConfig:
        """Read a configuration from JSON values; `source` names them in errors.

        All fields are required, so that a misspelt one does not get its default. Other keys are ignored: released
        configuration files also hold training settings.

        Raises:
            ConfigError: a field is missing or out of range.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{source}: expected a JSON object with the fields of a codec configuration")
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if name not in values]
        if missing:
            raise ConfigError(f"{source}: missing {', '.join(missing)}")
        try:
            return cls(**{name: values[name] for name in names})
        except ConfigError as error:
            raise ConfigError(str(error).replace("configuration", source, 1)) from None

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


def _strides(value: Any) -> tuple[int, ...]:
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    if not is_list or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in value):
        raise ConfigError(f"configuration: strides must be a list of positive integers, not {value!r}")
    return tuple(value)
