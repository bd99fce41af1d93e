"""The configuration of a training run: frozen, checked, the same in JSON; by default the released recipe."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointNotFoundError, ConfigError

# FOLDED: Sections of a configuration: frozen dataclasses read strictly from JSON values, and the checks they share.


TEACHERS = ("lm", "sm")
AXES = ("feature", "time")


S = TypeVar("S")


def build(section: type[S], values: Any, where: str) -> S:
    """A `section` (a dataclass) from a JSON object; `where` is its name in errors, with a dot at the end.

    Raises:
        ConfigError: a key is unknown, or a value is of the wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or 'the whole'} must be a JSON object, not {values!r}")
    hints = typing.get_type_hints(section)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(f"unknown key {where}{unknown[0]}; known: {', '.join(hints)}")
    missing = [field.name for field in dataclasses.fields(typing.cast(Any, section)) if _required(field, values)]
    if missing:
        raise ConfigError(f"missing key {where}{missing[0]}")
    return section(**{key: _value(hints[key], value, f"{where}{key}") for key, value in values.items()})


def _required(field: dataclasses.Field[Any], values: Any) -> bool:
    without_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return without_default and field.name not in values


def _value(hint: Any, value: Any, name: str) -> Any:
    """`value` of JSON as `hint`: a section, a tuple, a number, a string, or one of them or None."""
    if typing.get_origin(hint) is types.UnionType:
        return None if value is None else _value(typing.get_args(hint)[0], value, name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{name} must be a list, not {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, one, f"{name}[{i}]") for i, one in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(Any, hint), value, f"{name}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be {hint.__name__}, not {value!r}")
    return value


def check_positive(section: Any, *names: str) -> None:
    """Raises ConfigError where a field of `section` isn't a finite number above 0."""
    for name in names:
        if not 0 < getattr(section, name) < float("inf"):
            raise ConfigError(f"training configuration: {name} must be above 0, not {getattr(section, name)!r}")


def check_not_negative(section: Any, *names: str) -> None:
    """Raises ConfigError where a field of `section` isn't a finite number from 0 on."""
    for name in names:
        if not 0 <= getattr(section, name) < float("inf"):
            raise ConfigError(f"training configuration: {name} must not be negative, not {getattr(section, name)!r}")


@dataclasses.dataclass(frozen=True)
class MelScaleConfig:
    """One log-mel spectrogram of the mel loss and its weight in the sum."""

    n_fft: int
    hop_length: int
    weight: float
    n_mels: int = 80

    def __post_init__(self) -> None:
        check_positive(self, "n_fft", "hop_length", "n_mels")
        check_not_negative(self, "weight")
        if self.hop_length > self.n_fft or (self.n_fft - self.hop_length) % 2:
            raise ConfigError(
                f"training configuration: mel hop_length {self.hop_length} must be at most n_fft {self.n_fft} "
                "and differ from it by an even number"
            )


@dataclasses.dataclass(frozen=True)
class SpectralConfig:
    """One compressed spectrum of the spectral loss and its weight in the sum (Braun and Tashev, arXiv 2009.12286).

    `compression` is the exponent of the magnitudes, `complex_share` the part of the loss that hears phases, too.
    """

    n_fft: int
    hop_length: int
    weight: float
    compression: float = 0.3
    complex_share: float = 0.3

    def __post_init__(self) -> None:
        check_positive(self, "n_fft", "hop_length")
        check_not_negative(self, "weight")
        if self.hop_length > self.n_fft or self.n_fft % 2:
            raise ConfigError(
                f"training configuration: spectral n_fft {self.n_fft} must be even, "
                f"and hop_length {self.hop_length} at most n_fft"
            )
        if not 0 < self.compression <= 1 or not 0 <= self.complex_share <= 1:
            raise ConfigError("training configuration: spectral compression and complex_share must be from 0 to 1")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the generator's losses. The adversarial and the feature loss are sums over all discriminators.

    `spectral` is no part of the released recipe, and empty by default.
    """

    waveform: float = 500.0
    commitment: float = 10.0
    distillation: float = 120.0
    adversarial: float = 1.0
    feature_matching: float = 2.0
    mel: tuple[MelScaleConfig, ...] = (
        MelScaleConfig(1024, 240, 45.0),
        MelScaleConfig(512, 120, 1.0),
        MelScaleConfig(256, 60, 1.0),
        MelScaleConfig(128, 30, 1.0),
    )
    spectral: tuple[SpectralConfig, ...] = ()

    def __post_init__(self) -> None:
        check_not_negative(self, "waveform", "commitment", "distillation", "adversarial", "feature_matching")
        if not self.mel:
            raise ConfigError("training configuration: losses.mel needs one scale at least; the first one is validated")


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Which teachers pull at which quantizer level, and along which axis (paper, section 3.2).

    `locked` names the teacher that stays on level 0 while the other one is distilled at `level`; None puts all on
    `level`. `lm_weight` and `sm_weight` count only where both teachers are on; the default is their mean.
    """

    teachers: tuple[str, ...] = ("lm", "sm")
    level: int = 0
    locked: str | None = None
    lm_weight: float = 0.5
    sm_weight: float = 0.5
    axis: str = "feature"
    time_lambda: float = 1.0

    def __post_init__(self) -> None:
        unknown = [name for name in self.teachers if name not in TEACHERS]
        if unknown or len(set(self.teachers)) != len(self.teachers):
            raise ConfigError(f"training configuration: distillation.teachers must be of {list(TEACHERS)}, once each")
        if self.axis not in AXES:
            raise ConfigError(f"training configuration: distillation.axis must be of {list(AXES)}, not {self.axis!r}")
        check_not_negative(self, "level", "lm_weight", "sm_weight", "time_lambda")
        if self.locked is not None and (set(self.teachers) != set(TEACHERS) or self.locked not in TEACHERS):
            raise ConfigError(
                "training configuration: distillation.locked needs both teachers, and names one: lm or sm"
            )
        if self.locked is not None and self.level == 0:
            raise ConfigError(
                f"training configuration: with {self.locked} locked to level 0, distillation.level must be 1 or more"
            )
        if len(self.teachers) == 2 and self.lm_weight + self.sm_weight == 0:
            raise ConfigError("training configuration: lm_weight and sm_weight are both 0; leave out a teacher instead")

    def level_of(self, teacher: str) -> int:
        """The quantizer level that `teacher` is distilled into."""
        return 0 if teacher == self.locked else self.level

    def weight_of(self, teacher: str) -> float:
        """The weight of `teacher` among the teachers."""
        if len(self.teachers) < 2:
            return 1.0
        return self.lm_weight if teacher == "lm" else self.sm_weight


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """Codebooks learned by exponential moving averages (EnCodec, arXiv 2210.13438).

    An entry is dead where its average count a step falls under `dead_below`, or under `dead_fraction` of the mean count
    where that is less: a small batch has fewer frames than the codebook entries. In the beginning the averages follow
    faster than `decay` (see `decay_at`): an untrained encoder's latents move away from a slow codebook, and all end up
    at one entry.
    """

    decay: float = 0.99
    epsilon: float = 1e-5
    kmeans_iterations: int = 50
    dead_below: float = 2.0
    dead_fraction: float = 0.1
    decay_warmup: bool = True

    def __post_init__(self) -> None:
        check_positive(self, "epsilon")
        check_not_negative(self, "kmeans_iterations", "dead_below", "dead_fraction")
        if not 0 < self.decay < 1 or self.dead_fraction >= 1:
            raise ConfigError("training configuration: quantizer.decay and dead_fraction must lie between 0 and 1")

    def decay_at(self, step: int) -> float:
        """The decay at training step `step`: with the warm-up (step + 1) / (step + 10), until that exceeds `decay`."""
        return min(self.decay, (step + 1) / (step + 10)) if self.decay_warmup else self.decay


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Multi-period, multi-scale and multi-scale STFT discriminators; an empty list leaves a family out.

    `width` scales the channels of the first two (1.0: HiFi-GAN's, up to 1024). Before step `start_step` the generator
    trains without them.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    scales: int = 3
    width: float = 1.0
    stft_n_fft: tuple[int, ...] = (1024, 2048, 512, 256, 128)
    stft_filters: int = 32
    start_step: int = 0

    def __post_init__(self) -> None:
        check_positive(self, "width", "stft_filters")
        check_not_negative(self, "scales", "start_step")
        if any(period < 2 for period in self.periods) or any(n_fft < 16 or n_fft % 4 for n_fft in self.stft_n_fft):
            raise ConfigError(
                "training configuration: discriminator periods must be 2 or more, stft_n_fft multiples of 4 from 16"
            )

    @property
    def any(self) -> bool:
        """Whether there is any discriminator."""
        return bool(self.periods or self.scales or self.stft_n_fft)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam with cosine annealing over all steps, for generator and discriminators alike."""

    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    warmup_steps: int = 0
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "learning_rate")
        check_not_negative(self, "weight_decay", "warmup_steps")
        if len(self.betas) != 2 or any(not 0 <= beta < 1 for beta in self.betas):
            raise ConfigError("training configuration: optimizer.betas must be two numbers from 0 to below 1")
        if self.max_grad_norm is not None:
            check_positive(self, "max_grad_norm")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a run computes. `steps` overrides `epochs`; a step is one optimizer update.

    `initial_weights`: "torch" are torch's defaults, as in the released recipe. With them an untrained encoder's latents
    hardly vary, and a codebook may need thousands of steps to spread; "scaled" ones (`DMCodec.scale_weights`) are
    larger and use their codebooks from the start, which suits small models and short runs.

    `crop_s`: a random stretch of that many seconds of each segment, another in every epoch, instead of all of it. It
    begins at one of the codec's frames, where the teachers' features are cut, too.
    """

    codec: CodecConfig = dataclasses.field(default_factory=CodecConfig)
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    quantizer: QuantizerConfig = dataclasses.field(default_factory=QuantizerConfig)
    discriminators: DiscriminatorConfig = dataclasses.field(default_factory=DiscriminatorConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    batch_size: int = 6
    crop_s: float | None = None
    epochs: int = 100
    steps: int | None = None
    gradient_accumulation: int = 1
    mixed_precision: str = "no"
    initial_weights: str = "torch"
    seed: int = 1234

    def __post_init__(self) -> None:
        check_positive(self, "batch_size", "epochs", "gradient_accumulation")
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"training configuration: seed must be from 0 to {2**31 - 1}, not {self.seed}")
        if self.steps is not None:
            check_positive(self, "steps")
        if self.crop_s is not None:
            check_positive(self, "crop_s")
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise ConfigError(
                f"training configuration: mixed_precision must be no, fp16 or bf16, not {self.mixed_precision!r}"
            )
        if self.mixed_precision == "fp16" and self.gradient_accumulation > 1:
            # One loss scale serves two optimizers here, and changes between their steps.
            raise ConfigError("training configuration: gradient_accumulation doesn't work with fp16; use bf16")
        if self.initial_weights not in ("torch", "scaled"):
            raise ConfigError(
                f"training configuration: initial_weights must be torch or scaled, not {self.initial_weights!r}"
            )
        if self.distillation.level >= self.codec.n_q:
            raise ConfigError(
                f"training configuration: distillation.level {self.distillation.level} is beyond the codec's "
                f"n_q {self.codec.n_q} levels"
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Any, source: str = "training configuration") -> TrainingConfig:
        """Reads a configuration from JSON values; what is left out keeps the released recipe's value.

        Raises:
            ConfigError: a key is unknown, or a value is of the wrong type or out of its range.
        """
        try:
            return build(cls, values, "")
        except ConfigError as error:
            raise ConfigError(f"{source}: {str(error).removeprefix('training configuration: ')}") from None

    @classmethod
    def from_json(cls, path: str | Path) -> TrainingConfig:
        """Reads a configuration from a JSON file."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointNotFoundError(f"{path}: no such configuration file") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: can't be read as a JSON configuration ({error})") from None
        return cls.from_dict(values, source=str(path))
