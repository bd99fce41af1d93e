"""Checkpoints: loaded strictly, problems named, nothing in them executed."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointError, CheckpointNotFoundError
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id, read_checkpoint
from dmcodec.nn.layers import Conv1d

CONFIG = CodecConfig(n_filters=2, dimension=8, semantic_dimension=6, strides=(4, 2), codebook_size=16, n_q=2)
EMBED = "quantizer.vq.layers.0._codebook.embed"
BIAS = "encoder.model.0.conv.conv.bias"


@pytest.fixture(scope="module")
def model() -> DMCodec:
    return DMCodec.seeded(CONFIG)


def save(model: DMCodec, path: Path, **changes: Any) -> Path:
    """Saves the model's state, with tensors replaced (or, by None, left out), names with dots as they are."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()} | changes
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def load(path: Path) -> DMCodec:
    return DMCodec.from_checkpoint(CONFIG, path)


def assert_same(one: DMCodec, other: DMCodec) -> None:
    for (name, mine), (other_name, theirs) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert name == other_name
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


SUFFIXES = pytest.mark.parametrize("suffix", [".pt", ".safetensors"])


@SUFFIXES
def test_a_saved_model_is_loaded_again(tmp_path: Path, model: DMCodec, suffix: str) -> None:
    loaded = load(save(model, tmp_path / f"model{suffix}"))
    assert_same(loaded, model)
    assert not loaded.training
    assert model_id(loaded) == model_id(model)
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 1, 333)).astype(np.float32))
    torch.testing.assert_close(loaded.encode(noise), model.encode(noise), atol=0, rtol=0)


def test_the_configuration_may_be_a_file(tmp_path: Path, model: DMCodec) -> None:
    import json

    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    assert_same(DMCodec.from_checkpoint(tmp_path / "config.json", save(model, tmp_path / "a.pt")), model)


@SUFFIXES
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({EMBED: None}, f"missing tensor {EMBED}"),
        ({"extra.weight": torch.zeros(2)}, "unexpected tensor extra.weight"),
        ({BIAS: torch.zeros(3)}, f"{BIAS} has shape (3,), expected (2,)"),
        ({EMBED: torch.zeros(16, 9)}, f"{EMBED} has shape (16, 9), expected (16, 8)"),
        ({BIAS: torch.tensor([0.0, float("nan")])}, f"{BIAS} holds NaN"),
        ({BIAS: torch.tensor([float("-inf"), 0.0])}, f"{BIAS} holds NaN or infinite"),
        ({BIAS: torch.tensor([0.0, float("inf")]).half()}, f"{BIAS} holds NaN or infinite"),
        ({BIAS: None, "encoder.model.0.conv.conv.bais": torch.zeros(2)}, f"missing tensor {BIAS}; unexpected tensor"),
    ],
)
def test_what_doesnt_fit_is_named(
    tmp_path: Path, model: DMCodec, suffix: str, changes: dict[str, Tensor | None], reason: str
) -> None:
    path = save(model, tmp_path / f"wrong{suffix}", **changes)
    with pytest.raises(CheckpointError, match=re.escape(reason)) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_checkpoint_of_another_configuration(tmp_path: Path, model: DMCodec) -> None:
    path = save(model, tmp_path / "a.pt")
    for other in (CodecConfig(), CodecConfig(**{**CONFIG.to_dict(), "n_q": 3})):
        with pytest.raises(CheckpointError, match="configuration") as caught:
            DMCodec.from_checkpoint(other, path)
        assert len(str(caught.value)) < 600


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def write_legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_plain(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [torch.save, write_legacy, write_plain])
@pytest.mark.parametrize("wrap", [lambda hostile: hostile, lambda hostile: {BIAS: hostile}])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    tmp_path: Path, write: Callable[[object, Path], object], wrap: Callable[[Hostile], object]
) -> None:
    path, trace = tmp_path / "hostile.pt", tmp_path / "was_here"
    write(wrap(Hostile(trace)), path)
    with pytest.raises(CheckpointError, match=r"hostile\.pt"):
        load(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists()


@SUFFIXES
@pytest.mark.parametrize(
    "content", [b"", b"text\n" * 30, bytes(500), b"PK\x03\x04 not a zip", b"\x80\x02", struct.pack("<Q", 2**62) + b"{}"]
)
def test_what_is_not_a_checkpoint_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"foreign\.") as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [[torch.zeros(2)], torch.zeros(2), {1: torch.zeros(2)}, {"state_dict": {"step": 3}}, None]
)
def test_what_is_not_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: not a state dict"):
        load(tmp_path / "other.pt")


@pytest.mark.parametrize("suffix", [".pt", ".legacy", ".safetensors"])
def test_a_damaged_checkpoint_is_one_error_or_another_value(tmp_path: Path, suffix: str) -> None:
    """Cut anywhere it is refused; altered anywhere nothing but CheckpointError may come of it."""
    path = tmp_path / f"small{suffix}"
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(3)}
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix == ".pt")
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in [*range(0, len(good), max(1, len(good) // 100)), len(good) - 1]:
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    refused = 0
    for _ in range(200):
        content = bytearray(good)
        content[rng.integers(min(len(good), 500))] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("name", ["none.pt", "none.safetensors", "x" * 5000])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointNotFoundError, match="no such checkpoint"):
        load(tmp_path / name)
    assert issubclass(CheckpointNotFoundError, FileNotFoundError)


@SUFFIXES
def test_new_style_weight_norm_names_load(tmp_path: Path, model: DMCodec, suffix: str) -> None:
    changes: dict[str, Tensor | None] = {}
    for name, tensor in model.state_dict().items():
        for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
            if name.endswith(old):
                changes[name] = None
                changes[name.replace(old, f"parametrizations.weight.{new}")] = tensor.clone()
    assert len(changes) > 20
    assert_same(load(save(model, tmp_path / f"new{suffix}", **changes)), model)


def test_the_new_style_names_are_torchs() -> None:
    """And what they stand for: torch's own parametrization gives the weight that ours gives."""
    first = DMCodec.seeded(CONFIG).encoder.model[0]
    assert isinstance(first, Conv1d)
    ours = first.weights
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 2, 7), dim=0)
    state = {
        "parametrizations.weight.original0": ours.weight_g,
        "parametrizations.weight.original1": ours.weight_v,
        "bias": ours.bias,
    }
    conv.load_state_dict(state)
    torch.testing.assert_close(conv.weight, ours.weight())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@SUFFIXES
def test_other_float_types_load_as_float32(tmp_path: Path, model: DMCodec, dtype: torch.dtype, suffix: str) -> None:
    changes = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    loaded = load(save(model, tmp_path / f"half{suffix}", **changes))
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, model.state_dict()[name].to(dtype).float(), atol=0, rtol=0)
    loaded.encode(torch.zeros(1, 1, 100))


def test_the_model_id_names_the_weights(model: DMCodec) -> None:
    first = model_id(model)
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert first == model_id(DMCodec.seeded(CONFIG))
    assert first != model_id(DMCodec.seeded(CONFIG, seed=1))
    for name, same in ((BIAS, False), (EMBED, False), (EMBED + "_avg", True), (EMBED[:-5] + "cluster_size", True)):
        other = DMCodec.seeded(CONFIG)
        other.state_dict()[name].view(-1)[0] += 1e-3
        assert (model_id(other) == first) == same, name


def test_a_seed_leaves_torchs_own_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    DMCodec.seeded(CONFIG, seed=3)
    torch.testing.assert_close(torch.rand(3), expected, atol=0, rtol=0)
