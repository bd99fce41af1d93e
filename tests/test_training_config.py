"""The training configuration: the released defaults, strict reading, and the options of `train fit`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmcodec.cli.train.fit import _configuration
from dmcodec.errors import ArgumentError, CheckpointNotFoundError, ConfigError
from dmcodec.training.config import DistillationConfig, OptimizerConfig, QuantizerConfig, TrainingConfig
from dmcodec.training.trainer import learning_rate

NO_CHANGES: dict[str, object] = {}


def test_defaults_are_the_released_recipe() -> None:
    config = TrainingConfig()
    losses = config.losses
    assert [(scale.n_fft, scale.hop_length, scale.weight) for scale in losses.mel] == [
        (1024, 240, 45), (512, 120, 1), (256, 60, 1), (128, 30, 1)
    ]  # fmt: skip
    assert (losses.waveform, losses.commitment, losses.distillation) == (500, 10, 120)
    assert (losses.adversarial, losses.feature_matching) == (1, 2)
    assert (config.optimizer.learning_rate, config.optimizer.betas, config.optimizer.weight_decay) == (
        1e-4,
        (0.9, 0.99),
        0,
    )
    assert (config.batch_size, config.epochs, config.seed) == (6, 100, 1234)
    assert (config.quantizer.decay, config.quantizer.epsilon) == (0.99, 1e-5)
    assert (config.quantizer.kmeans_iterations, config.quantizer.dead_below) == (50, 2)
    assert config.discriminators.periods == (2, 3, 5, 7, 11)
    assert config.discriminators.stft_n_fft == (1024, 2048, 512, 256, 128)
    assert (config.discriminators.scales, config.discriminators.stft_filters) == (3, 32)


def test_it_round_trips_through_json(tmp_path: Path) -> None:
    config = TrainingConfig.from_dict(
        {"codec": {"n_filters": 16}, "distillation": {"locked": "sm", "level": 2}, "steps": 7, "seed": 5}
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert TrainingConfig.from_json(path) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 1e-4}, "unknown key learning_rate"),
        ({"optimizer": {"lr": 1e-4}}, "unknown key optimizer.lr"),
        ({"codec": {"n_filter": 16}}, "unknown key codec.n_filter"),
        ({"losses": {"mel": [{"n_fft": 256, "hop_length": 60}]}}, "weight"),
        ({"losses": {"mel": []}}, "mel"),
        ({"losses": {"mel": [{"n_fft": 256, "hop_length": 61, "weight": 1}]}}, "even"),
        ({"losses": {"spectral": [{"n_fft": 255, "hop_length": 64, "weight": 1}]}}, "even"),
        ({"losses": {"spectral": [{"n_fft": 256, "hop_length": 512, "weight": 1}]}}, "at most"),
        ({"losses": {"spectral": [{"n_fft": 256, "hop_length": 64, "weight": 1, "compression": 0}]}}, "compression"),
        ({"losses": {"spectral": [{"n_fft": 256, "hop_length": 64, "weight": 1, "complex_share": 2}]}}, "share"),
        ({"losses": {"waveform": -1}}, "waveform"),
        ({"losses": {"waveform": math.nan}}, "waveform"),
        ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate must be float"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "betas"),
        ({"optimizer": {"betas": [0.9]}}, "betas"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size must be int"),
        ({"batch_size": 2.5}, "batch_size must be int"),
        ({"quantizer": {"decay": 1.0}}, "decay"),
        ({"distillation": {"teachers": ["hubert"]}}, "teachers"),
        ({"distillation": {"teachers": ["lm", "lm"]}}, "teachers"),
        ({"distillation": {"level": 8}}, "level 8 is beyond"),
        ({"distillation": {"locked": "lm"}}, "level must be 1 or more"),
        ({"distillation": {"teachers": ["lm"], "locked": "lm", "level": 1}}, "locked needs both"),
        ({"distillation": {"axis": "d"}}, "axis"),
        ({"distillation": {"lm_weight": 0, "sm_weight": 0}}, "both 0"),
        ({"discriminators": {"stft_n_fft": [100.5]}}, "stft_n_fft"),
        ({"discriminators": {"periods": [1]}}, "periods"),
        ({"mixed_precision": "fp8"}, "mixed_precision"),
        ({"initial_weights": "big"}, "initial_weights"),
        ({"seed": 2**31}, "seed"),
        ({"mixed_precision": "fp16", "gradient_accumulation": 2}, "gradient_accumulation doesn't work with fp16"),
        ({"codec": []}, "JSON object"),
        ([], "JSON object"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_named(values: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_dict(values, "my.json")


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match=r"none\.json"):
        TrainingConfig.from_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json"):
        TrainingConfig.from_json(tmp_path / "bad.json")


def test_options_go_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"batch_size": 2, "steps": 9, "distillation": {"teachers": ["lm"], "level": 1}}))
    config = _configuration(path, {"batch_size": 3, "steps": None}, "lm+sm", "0.8:0.2", 2, "lm")
    assert (config.batch_size, config.steps) == (3, 9)
    assert config.distillation == DistillationConfig(("lm", "sm"), 2, "lm", 0.8, 0.2)
    assert _configuration(path, NO_CHANGES, None, None, None, None).distillation.teachers == ("lm",)
    assert _configuration(None, NO_CHANGES, "none", None, None, None).distillation.teachers == ()


@pytest.mark.parametrize(
    ("distill", "weights", "level", "lock", "message"),
    [
        ("both", None, None, None, "--distill"),
        ("lm", "1:1", None, None, "--weights and --lock"),
        ("sm", None, None, "sm", "--weights and --lock"),
        (None, "1", None, None, "--weights '1'"),
        (None, "1:x", None, None, "--weights"),
        (None, "-1:1", None, None, "lm_weight"),
        (None, None, 8, None, "level 8"),
        (None, None, None, "lm", "level must be 1 or more"),
        (None, None, 1, "hubert", "locked"),
    ],
)
def test_wrong_options_are_wrong_calls(
    distill: str | None, weights: str | None, level: int | None, lock: str | None, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        _configuration(None, NO_CHANGES, distill, weights, level, lock)


@given(st.integers(1, 10_000), st.integers(0, 100))
def test_the_learning_rate_rises_then_falls_to_nothing(total: int, warmup: int) -> None:
    config = OptimizerConfig(warmup_steps=warmup)
    rates = [learning_rate(step, total, config) for step in range(0, total + 1, max(1, total // 200))]
    assert all(0 <= rate <= config.learning_rate * (1 + 1e-9) for rate in rates)
    after = [learning_rate(step, total, config) for step in range(warmup, max(warmup, total) + 1, 7)]
    assert after == sorted(after, reverse=True)
    if warmup < total:
        assert learning_rate(total, total, config) == pytest.approx(0, abs=1e-12)
        middle = (warmup + total) / 2
        assert learning_rate(int(middle), total, config) == pytest.approx(
            config.learning_rate * 0.5 * (1 + math.cos(math.pi * (int(middle) - warmup) / (total - warmup)))
        )


def test_the_decay_warms_up_to_the_configured_one() -> None:
    config = QuantizerConfig()
    decays = [config.decay_at(step) for step in range(1000)]
    assert decays == sorted(decays)
    assert decays[0] == pytest.approx(0.1)
    assert decays[-1] == 0.99
    assert QuantizerConfig(decay_warmup=False).decay_at(0) == 0.99
