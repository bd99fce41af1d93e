"""Checkpoints and configurations of EnCodec that are refused, and models of the Hugging Face hub."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dmcodec.cli import main
from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointError, CheckpointNotFoundError, ConfigError, DownloadError
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id

pytest.importorskip("transformers")
from encodec_models import config_values, in_metas_layout, random_model, save


def failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], checkpoint: str | Path, out: str | Path
) -> str:
    """The one line that an export ends with, which fails."""
    arguments = ["dmcodec", "export", "--checkpoint", str(checkpoint), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.strip().splitlines()
    return str(line)


# What is refused


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "48 kHz": (
        {"audio_channels": 2, "norm_type": "time_group_norm", "normalize": True, "chunk_length_s": 1.0},
        "audio_channels is 2: this family is mono .*48 kHz stereo is not",
    ),
    "another norm": ({"norm_type": "time_group_norm"}, "norm_type is 'time_group_norm': it normalizes"),
    "normalized": ({"normalize": True}, "normalize is true: codes would need the loudness"),
    "chunks": ({"chunk_length_s": 1.0}, "chunk_length_s is 1.0: clips run as a whole"),
    "kernel": ({"last_kernel_size": 5}, "last_kernel_size is 5, not 7"),
    "projected codebooks": ({"codebook_dim": 8}, "codebook_dim is 8, not hidden_size 16"),
    "padding": ({"pad_mode": "constant"}, "pad_mode 'constant' is not supported; this family uses 'reflect'"),
    "another model": ({"model_type": "dac"}, "is of a model of type 'dac', which is not of this family"),
    "no rate": ({"sampling_rate": None}, "missing sampling_rate|sampling_rate, codebook_size"),
    "a text": ({"upsampling_ratios": "8542"}, "must be numbers|strides must be a list"),
    "filters": ({"num_filters": 6, "compress": 4}, "num_filters must be a multiple of compress 4, not 6"),
    "no layers": ({"num_lstm_layers": 0}, "num_lstm_layers must be an integer from 1"),
    "trim": ({"trim_right_ratio": 1.5}, "trim_right_ratio must be 0 to 1, not 1.5"),
    "no codebooks": (
        {"target_bandwidths": [0.1]},
        "target_bandwidths ends with 0.1 kbit/s, which is less than one codebook's 0.45",
    ),
    "no bandwidths": ({"target_bandwidths": []}, "target_bandwidths must be numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_configurations_that_are_refused(name: str, encodec_folder: Path, tmp_path: Path) -> None:
    changes, problem = WRONG[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config_values(encodec_folder), **changes}))
    with pytest.raises(ConfigError, match=problem) as caught:
        CodecConfig.from_json(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("field", ["num_filters", "upsampling_ratios", "use_causal_conv", "sampling_rate", "norm_type"])
def test_a_missing_field_of_transformers_is_named(field: str, encodec_folder: Path) -> None:
    values = config_values(encodec_folder)
    del values[field]
    with pytest.raises(ConfigError, match=f"here: missing {field}; take the config.json"):
        CodecConfig.from_dict(values, source="here")


def stereo(state: dict[str, Any]) -> None:
    name = "encoder.model.0.conv.conv.weight_v"
    state[name] = state[name].expand(-1, 2, -1).clone()


def normalized(state: dict[str, Any]) -> None:
    state["encoder.model.1.block.1.conv.norm.weight"] = torch.ones(2)


def one_missing(state: dict[str, Any]) -> None:
    del state["decoder.model.3.convtr.convtr.weight_g"]


def integers(state: dict[str, Any]) -> None:
    state["encoder.model.0.conv.conv.bias"] = torch.ones(4, dtype=torch.int32)


def infinite(state: dict[str, Any]) -> None:
    state["quantizer.vq.layers.3._codebook.embed"][0, 0] = float("inf")


def fewer_levels(state: dict[str, Any]) -> None:
    for name in [name for name in state if name.startswith("quantizer.vq.layers.7.")]:
        del state[name]


TENSORS: dict[Callable[[dict[str, Any]], None], str] = {
    stereo: "is of a codec with 2 audio channels, this family is mono; EnCodec 24 kHz is supported, 48 kHz stereo",
    normalized: "normalizes activations over the whole of a clip .encoder.model.1.block.1.conv.norm.weight.",
    one_missing: "missing tensor decoder.model.3.convtr.convtr.weight_g",
    integers: "encoder.model.0.conv.conv.bias has type int32, expected floating-point",
    infinite: "quantizer.vq.layers.3._codebook.embed holds NaN or infinite",
    fewer_levels: "missing tensor quantizer.vq.layers.7._codebook",
}


@pytest.mark.parametrize("alter", TENSORS)
def test_tensors_that_are_refused(
    alter: Callable[[dict[str, Any]], None], encodec_model: Any, encodec_folder: Path, tmp_path: Path
) -> None:
    state = in_metas_layout(encodec_model)
    alter(state)
    torch.save(state, tmp_path / "x.th")
    with pytest.raises(CheckpointError, match=TENSORS[alter]) as caught:
        DMCodec.from_checkpoint(encodec_folder, tmp_path / "x.th")
    assert str(caught.value).startswith(str(tmp_path / "x.th"))


def test_the_48_khz_model_is_refused_at_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = random_model(
        num_filters=2, hidden_size=8, codebook_size=16, audio_channels=2, norm_type="time_group_norm", normalize=True,
        use_causal_conv=False, sampling_rate=48000, chunk_length_s=1.0, overlap=0.01, target_bandwidths=[2.4],
    )  # fmt: skip
    folder = save(model, tmp_path / "encodec_48khz")
    line = failure(monkeypatch, capsys, folder, tmp_path / "out.bundle")
    assert line.startswith(f"error: {folder / 'config.json'}: audio_channels is 2: this family is mono")
    torch.save(in_metas_layout(model), tmp_path / "encodec_48khz-7e698e3e.th")
    line = failure(monkeypatch, capsys, tmp_path / "encodec_48khz-7e698e3e.th", tmp_path / "out.bundle")
    assert "2 audio channels, this family is mono" in line
    assert not (tmp_path / "out.bundle").exists()


# The hub


@pytest.fixture
def hub(encodec_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of huggingface_hub with one model in it, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    model = tmp_path / "cache" / "models--someone--encodec-small"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(encodec_folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return model


def test_a_model_of_the_hub(hub: Path, encodec_folder: Path) -> None:
    expected = model_id(DMCodec.from_checkpoint(None, encodec_folder))
    assert model_id(DMCodec.from_checkpoint(None, "someone/encodec-small")) == expected
    assert model_id(DMCodec.from_checkpoint(None, "someone/encodec-small@main")) == expected


@pytest.mark.parametrize("name", ["someone/nothing", "someone/encodec-small@v2"])
def test_the_hub_out_of_reach_is_one_sentence(
    hub: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        DownloadError, match=f"{name}: no such file or folder, and not fetched .*HF_HUB_OFFLINE is set.*, or name a"
    ):
        DMCodec.from_checkpoint(None, name)
    assert failure(monkeypatch, capsys, name, "out.bundle").startswith(f"error: {name}: no such file or folder")


@pytest.mark.parametrize("name", ["folder/none", "folder/none.pt", "none", "a/b/c", "org/weights.safetensors"])
def test_paths_that_are_no_names_of_the_hub(hub: Path, name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointNotFoundError, match="no such checkpoint file"):
        DMCodec.from_checkpoint(None, name)
