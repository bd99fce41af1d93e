"""Configuration of a training run, as in its JSON file; the defaults are the released recipe."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from dmcodec.checkpoint_files import config_file
from dmcodec.config import CodecConfig, read_json_config
from dmcodec.errors import ConfigError

from .sections import build, check_not_negative, check_positive

TEACHERS = ("lm", "sm")
AXES = ("feature", "time")


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

    `compression` is the exponent of the magnitudes, `complex_share` the share of the loss that depends on phases.
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
    """Weights of the losses of the generator. Adversarial and feature-matching loss are sums over all discriminators.

    `spectral` is not part of the released recipe, and empty by default.
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
            raise ConfigError(
                "training configuration: losses.mel needs at least one scale; validation uses the first one"
            )


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Which teachers are distilled into which quantizer level, and along which axis (arXiv 2410.15017, section 3.2).

    `locked` names the teacher that is distilled into level 0 while the other one is distilled into `level`; with None
    all are distilled into `level`. `lm_weight` and `sm_weight` only matter with both teachers; the default is the mean.
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
        """Return the quantizer level that `teacher` is distilled into."""
        return 0 if teacher == self.locked else self.level

    def weight_of(self, teacher: str) -> float:
        """Return the weight of `teacher` among the teachers."""
        if len(self.teachers) < 2:
            return 1.0
        return self.lm_weight if teacher == "lm" else self.sm_weight


@dataclasses.dataclass(frozen=True)
class ConsistencyConfig:
    """Consistency of latents under slicing and perturbed phases (arXiv 2409.19283); off with a weight of 0.

    `slice_share` is the length of a slice as a share of the batch's shortest segment, `phase_rad` the most by which
    a phase is turned. It is not part of the released recipe.
    """

    weight: float = 0.0
    slice_share: float = 0.2
    phase_rad: float = 0.1

    def __post_init__(self) -> None:
        check_not_negative(self, "weight")
        if not 0 < self.slice_share <= 1:
            raise ConfigError(
                f"training configuration: consistency.slice_share must be above 0 and at most 1, not {self.slice_share}"
            )
        if not 0 <= self.phase_rad <= 3.1416:
            raise ConfigError(
                f"training configuration: consistency.phase_rad must be from 0 to pi, not {self.phase_rad}"
            )


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """Codebooks learned by exponential moving averages (EnCodec, arXiv 2210.13438).

    An entry is dead where its moving count per step is below `dead_below`, or below `dead_fraction` of the mean count
    if that is less: a small batch has fewer frames than the codebook has entries. At first the averages move faster
    than `decay` says (`decay_at`): the latents of an untrained encoder move away from a slow codebook, and then all get
    the same entry.
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
        """Return the decay at a training step: during the warm-up (step + 1) / (step + 10), up to `decay`."""
        return min(self.decay, (step + 1) / (step + 10)) if self.decay_warmup else self.decay


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Multi-period, multi-scale and multi-scale STFT discriminators; an empty list or 0 leaves a family out.

    `width` scales the channels of the first two families (1.0: those of HiFi-GAN, up to 1024). The generator trains
    without discriminators before step `start_step`.
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
    """AdamW with cosine annealing over all steps, for generator and discriminators."""

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
    """All that determines the result of a run. `steps` overrides `epochs`; a step is one optimizer update.

    `initial_weights`: "torch" are torch's defaults, as in the released recipe. With them the latents of an untrained
    encoder hardly vary, and a codebook may need thousands of steps to spread. "scaled" weights
    (`DMCodec.scale_weights`) are larger and use all of their codebooks from the start, which suits small models and
    short runs.

    `crop_s`: train on a random crop of that many seconds of each segment, another one in every epoch, instead of the
    whole segment. A crop starts at a frame of the codec, and the teachers' features are cropped with it.
    """

    codec: CodecConfig = dataclasses.field(default_factory=CodecConfig)
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    consistency: ConsistencyConfig = dataclasses.field(default_factory=ConsistencyConfig)
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
            # The two optimizers share one loss scale, which changes between their steps.
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
        """Return the configuration as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: Any, source: str = "training configuration") -> TrainingConfig:
        """Build a configuration from JSON values; missing keys get the values of the released recipe.

        Raises:
            ConfigError: a key is unknown, or a value has the wrong type or is out of range.
        """
        try:
            return build(cls, values, "")
        except ConfigError as error:
            raise ConfigError(f"{source}: {str(error).removeprefix('training configuration: ')}") from None

    @classmethod
    def from_json(cls, path: str | Path) -> TrainingConfig:
        """Read a configuration from a JSON file, or from config.json in a folder.

        Raises:
            CheckpointNotFoundError: no such file.
            ConfigError: a folder without config.json, not JSON, or as `from_dict`.
        """
        path = config_file(path)
        return cls.from_dict(read_json_config(path), source=str(path))
