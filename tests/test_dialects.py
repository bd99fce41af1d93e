"""Checkpoints as trainers write them: one codec, whatever stands around and before its names."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from dmcodec.checkpoint_files import find_checkpoint
from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointError, CheckpointNotFoundError, ConfigError
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id
from dmcodec.text_files import decode_text

CONFIG = CodecConfig(n_filters=2, dimension=8, semantic_dimension=6, strides=(4, 2), codebook_size=16, n_q=2)
BIAS = "encoder.model.0.conv.conv.bias"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def model() -> DMCodec:
    return DMCodec.seeded(CONFIG)


@pytest.fixture(scope="module")
def state(model: DMCodec) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def inside(state: Mapping[str, Tensor], *parts: str) -> dict[str, State]:
    """The state as a dictionary of its parts, each without its own name."""
    return {
        part: {name.removeprefix(f"{part}."): each for name, each in state.items() if name.startswith(f"{part}.")}
        for part in parts
    }


OPTIMIZER = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 0.1}]}
DISCRIMINATOR = {"mpd.0.weight": torch.ones(3), "transform.weight": torch.ones(2, 2)}

WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "ddp": lambda state: under("module.", state),
    "compiled": lambda state: under("_orig_mod.", state),
    "ddp of compiled": lambda state: under("module._orig_mod.", state),
    "compiled of ddp": lambda state: under("_orig_mod.module.", state),
    "compiled parts": lambda state: {
        re.sub(r"^(encoder|decoder)\.", r"\1._orig_mod.", name): each for name, each in state.items()
    },
    "fsdp": lambda state: under("_fsdp_wrapped_module.", state),
    "model": lambda state: {"model": state, "optimizer": OPTIMIZER, "step": 3},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model_state_dict of ddp": lambda state: {"model_state_dict": under("module.", state), "optimizer_state_dict": {}},
    "net": lambda state: {"net": state},
    "ema": lambda state: {"ema": state, "args": {"lr": 0.1}},
    "reference": lambda state: {
        "generator": state,
        "discriminators": {"mpd": DISCRIMINATOR},
        "optim_g": OPTIMIZER,
        "scheduler_g": {},
    },
    "deepspeed": lambda state: {"module": under("module.", state), "ds_version": "0.1"},
    "lightning": lambda state: {"state_dict": under("model.", state), "callbacks": {}, "hyper_parameters": {"lr": 1}},
    "lightning gan": lambda state: {
        "state_dict": {**under("generator.", state), **under("discriminator.", DISCRIMINATOR)},
        "optimizer_states": [OPTIMIZER],
    },
    "lightning without a prefix": lambda state: {
        "state_dict": {**state, **under("discriminator.", DISCRIMINATOR), "loss_mel.window": torch.ones(2)}
    },
    "average": lambda state: {"n_averaged": torch.tensor(7), **under("module.", state)},
    "a dictionary for each part": lambda state: {**inside(state, "encoder", "decoder", "quantizer", "transform")},
    "beside the optimizer": lambda state: {**state, "optimizer": OPTIMIZER, "step": 3, "loss": torch.tensor(0.5)},
    "twice the same": lambda state: {"model": state, "best": dict(state)},
    "nested deeply": lambda state: {"checkpoint": {"trainer": {"model": {"codec": state}}}},
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrappings_load(tmp_path: Path, model: DMCodec, state: State, name: str) -> None:
    torch.save(WRAPPINGS[name](dict(state)), tmp_path / "wrapped.pt")
    assert model_id(DMCodec.from_checkpoint(CONFIG, tmp_path / "wrapped.pt")) == model_id(model)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".ckpt", ".bin", ""])
@pytest.mark.parametrize("kind", ["torch", "legacy", "safetensors"])
def test_the_format_is_that_of_the_content(
    tmp_path: Path, model: DMCodec, state: State, suffix: str, kind: str
) -> None:
    path = tmp_path / f"codec{suffix}"
    if kind == "safetensors":
        safetensors.torch.save_file(under("model.", state), path)
    else:
        torch.save(state, tmp_path / "plain", _use_new_zipfile_serialization=kind == "torch")
        (tmp_path / "plain").rename(path)
    assert model_id(DMCodec.from_checkpoint(CONFIG, path)) == model_id(model)


def test_a_checkpoint_without_statistics(tmp_path: Path, model: DMCodec, state: State) -> None:
    without = {name: each for name, each in state.items() if not name.endswith(("inited", "cluster_size", "embed_avg"))}
    torch.save({"model": under("module.", without)}, tmp_path / "a.pt")
    loaded = DMCodec.from_checkpoint(CONFIG, tmp_path / "a.pt")
    assert model_id(loaded) == model_id(model)
    for book in loaded.quantizer.levels:
        assert book.inited.tolist() == [1]
        assert torch.equal(book.embed_avg, book.embed)


def test_folded_weights_are_the_same_function(tmp_path: Path, model: DMCodec, state: State) -> None:
    """As after `remove_weight_norm`; a channel of zeros stays one."""
    folded = {}
    for name, tensor in state.items():
        if name.endswith("weight_v"):
            norm = tensor.flatten(1).norm(dim=1)[:, None, None]
            folded[name.removesuffix("_v")] = state[name[:-1] + "g"] * tensor / norm
        elif not name.endswith("weight_g"):
            folded[name] = tensor
    torch.save(folded, tmp_path / "folded.pt")
    loaded = DMCodec.from_checkpoint(CONFIG, tmp_path / "folded.pt")
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 1, 300)).astype(np.float32))
    torch.testing.assert_close(loaded.encoder(noise), model.encoder(noise), rtol=0, atol=1e-5)
    folded["encoder.model.0.conv.conv.weight"][0] = 0
    torch.save(folded, tmp_path / "zero.pt")
    first = DMCodec.from_checkpoint(CONFIG, tmp_path / "zero.pt").state_dict()
    assert first["encoder.model.0.conv.conv.weight_g"][0] == 0
    assert first["encoder.model.0.conv.conv.weight_v"][0].norm() > 0


def test_two_codecs_in_a_file_are_refused_by_name(tmp_path: Path, state: State) -> None:
    other = {name: each + 1 for name, each in state.items()}
    torch.save({"model": state, "ema": other}, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match=r"two\.pt: holds several codecs that differ, 'model' and 'ema'"):
        DMCodec.from_checkpoint(CONFIG, tmp_path / "two.pt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"net": {"a.weight": torch.ones(2)}, "step": 3}, r"none of the codec's tensors.* 1 others \(net\.a\.weight"),
        ({}, "holds nothing"),
        ({"epoch": 3, "args": {}}, "not a state dict.* entries are epoch, args"),
        ({"state_dict": {f"model.{BIAS}": torch.zeros(2)}}, r"missing tensor .*under state_dict\.model"),
        ({"state_dict": {f"model.{BIAS}": torch.zeros(3)}}, "missing tensor"),
    ],
)
def test_what_cant_be_read_is_refused_with_the_names_found(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=reason):
        DMCodec.from_checkpoint(CONFIG, tmp_path / "other.pt")


def test_a_wrong_shape_in_a_wrapping_is_named(tmp_path: Path, state: State) -> None:
    torch.save({"generator": under("module.", {**state, BIAS: torch.zeros(5)})}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"{re.escape(BIAS)} has shape \(5,\), expected \(2,\)"):
        DMCodec.from_checkpoint(CONFIG, tmp_path / "a.pt")
    torch.save({**state, BIAS: torch.zeros(2, dtype=torch.int8)}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="has type int8"):
        DMCodec.from_checkpoint(CONFIG, tmp_path / "b.pt")


def test_python_objects_are_refused_by_our_own_sentence(tmp_path: Path, state: State) -> None:
    torch.save({"model": state, "args": argparse.Namespace(lr=1)}, tmp_path / "args.pt")
    with pytest.raises(CheckpointError, match=r"Python objects .*argparse\.Namespace.*state_dict\(\)") as caught:
        DMCodec.from_checkpoint(CONFIG, tmp_path / "args.pt")
    assert "weights_only load failed" not in str(caught.value).lower()
    assert caught.value.__cause__ is not None  # torch's own words, for --debug


def test_files_that_are_no_checkpoints_are_told_apart(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "whole.pt", "whole.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # as torch.jit.save lays it out
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/constants.pkl", b"")
    files = {
        b"": "is empty",
        content[:-1000]: "cut short",
        content[: len(content) // 2]: "cut short",
        b"<!DOCTYPE html><html>": "web page",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n": "Git LFS",
        b'{"n_filters": 2}': "not the index",
        b"\x1f\x8b" + bytes(50): "gzip",
        b"plain text": "no checkpoint",
        (tmp_path / "a.zip").read_bytes(): "unpack",
        (tmp_path / "script.pt").read_bytes(): "TorchScript",
    }
    for data, reason in files.items():
        (tmp_path / "x.pt").write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"x\.pt: .*{reason}"):
            DMCodec.from_checkpoint(CONFIG, tmp_path / "x.pt")


def write_config(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))


def test_a_folder_finds_checkpoint_and_configuration(tmp_path: Path, model: DMCodec, state: State) -> None:
    folder = tmp_path / "mine"
    write_config(folder)
    with pytest.raises(CheckpointError, match="a folder without a checkpoint"):
        DMCodec.from_checkpoint(None, folder)
    torch.save(state, folder / "codec.pt")
    torch.save(OPTIMIZER, folder / "optimizer.pt")
    (folder / ".hidden.pt").write_bytes(b"x")
    assert model_id(DMCodec.from_checkpoint(None, folder)) == model_id(model)
    torch.save(state, folder / "other.pth")
    with pytest.raises(CheckpointError, match=r"mine: holds several checkpoints \(codec\.pt, other\.pth\)"):
        DMCodec.from_checkpoint(None, folder)
    with pytest.raises(CheckpointNotFoundError, match="no such checkpoint"):
        find_checkpoint(tmp_path / "none")


def test_a_bundle_is_no_checkpoint(tiny_bundle: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a bundle.*--bundle"):
        DMCodec.from_checkpoint(None, tiny_bundle)


def test_the_folder_of_a_run_gives_its_best_codec_else_its_last(tmp_path: Path, state: State) -> None:
    run = tmp_path / "run"
    for name in ("checkpoints/step-00000009", "checkpoints/step-100000000"):
        write_config(run / name)
        safetensors.torch.save_file(state, run / name / "codec.safetensors")
        torch.save(OPTIMIZER, run / name / "training.pt")
    (run / "run.json").write_text("{}")
    files = find_checkpoint(run)
    assert files.weights.parent.name == "step-100000000"
    assert files.chosen
    assert files.config == files.weights.parent / "config.json"
    write_config(run / "best")
    safetensors.torch.save_file(state, run / "best" / "codec.safetensors")
    assert find_checkpoint(run).weights == run / "best" / "codec.safetensors"


def test_weights_in_several_files(tmp_path: Path, model: DMCodec, state: State) -> None:
    write_config(tmp_path / "sharded")
    names = sorted(state)
    index: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.torch.save_file({name: state[name] for name in part}, tmp_path / "sharded" / file)
        index |= dict.fromkeys(part, file)
    path = tmp_path / "sharded" / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    for named in (path, path.parent):
        assert model_id(DMCodec.from_checkpoint(CONFIG, named)) == model_id(model)
    (path.parent / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"model-00002-of-00002\.safetensors: is missing"):
        DMCodec.from_checkpoint(CONFIG, path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_configurations_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG.to_dict(), indent=1), encoding=encoding)
    assert CodecConfig.from_json(path) == CONFIG
    assert CodecConfig.from_json(tmp_path) == CONFIG
    assert decode_text("é\n".encode(encoding)) == "é\n"


def test_configurations_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for content, reason in ((b'{"a": 1,}', "line 1, column"), (b"\xff\xff\x00", "not UTF-8"), (b"", "not JSON")):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"config\.json: .*{reason}"):
            CodecConfig.from_json(path)
