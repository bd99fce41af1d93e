"""EnCodec checkpoints against transformers' EncodecModel: both layouts, all lengths, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointNotFoundError
from dmcodec.export.agreement import snr_db, tied_frames
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id
from dmcodec.nn.released import ENCODEC_24KHZ
from dmcodec.runtime import Codec

pytest.importorskip("transformers")
from encodec_models import (
    SMALL,
    codebooks_of,
    config_values,
    decoded,
    encoded,
    in_metas_layout,
    latents_of,
    lengths,
    random_model,
    save,
)

MEMBERS: dict[str, dict[str, Any]] = {
    "24 kHz": {},
    "32 kHz of MusicGen": {
        "sampling_rate": 32000, "use_causal_conv": False, "use_conv_shortcut": False,
        "upsampling_ratios": [8, 5, 4, 4], "target_bandwidths": [1.2],
    },
    "narrow blocks, trimmed at both ends": {
        "num_filters": 8, "compress": 4, "trim_right_ratio": 0.5, "num_residual_layers": 2, "upsampling_ratios": [5, 3],
        "target_bandwidths": [20.0],
    },
}  # fmt: skip


def noise(num_samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.2, num_samples).astype(np.float32)


@pytest.fixture(scope="module")
def codec(encodec_bundle: Path) -> Codec:
    return Codec.load(encodec_bundle, threads=1)


def assert_same_codes(model: Any, waveform: NDArray[np.float32], codes: NDArray[Any]) -> None:
    expected = encoded(model, waveform)
    tied = tied_frames(codebooks_of(model), latents_of(model, waveform)[None], expected[:, None], codes[:, None])[0]
    np.testing.assert_array_equal(np.where(tied, expected, codes), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_codes_and_audio_are_those_of_transformers(encodec_model: Any, codec: Codec, batch: int) -> None:
    for num_samples in lengths(320, 48123):
        sizes = [num_samples, max(1, 2 * num_samples // 3), max(1, num_samples - 100)][:batch]
        clips = [noise(size, seed) for seed, size in enumerate(sizes)]
        for clip, tokens in zip(clips, codec.encode_batch(clips, 24000), strict=True):
            assert_same_codes(encodec_model, clip, tokens.codes.astype(np.int64))
            expected = decoded(encodec_model, tokens.codes)[: len(clip)]
            assert snr_db(expected, codec.decode(tokens)) >= 90


def test_the_codes_are_not_all_alike(codec: Codec) -> None:
    codes = codec.encode(noise(48000), 24000).codes
    assert min(len(np.unique(level)) for level in codes) > 8


@pytest.mark.parametrize("name", MEMBERS)
def test_the_network_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    model = random_model(seed=3, **{**SMALL, **MEMBERS[name]})
    own = DMCodec.from_checkpoint(None, save(model, tmp_path))
    for num_samples in (1, 7, own.config.hop_length + 1, 5000):
        clip = noise(num_samples)
        latents = own.encoder(torch.from_numpy(clip)[None, None])[0].detach().numpy()
        expected = latents_of(model, clip)
        np.testing.assert_allclose(latents, expected, rtol=0, atol=2e-6 * max(1.0, float(np.abs(expected).max())))
        codes = encoded(model, clip)
        assert codes.shape == (own.config.n_q, own.config.num_frames(num_samples))
        audio = own.decode(torch.from_numpy(codes)[:, None])[0, 0].numpy()
        assert snr_db(decoded(model, codes), audio) >= 90


def test_what_differs_is_configuration_in_the_manifest(encodec_bundle: Path, tiny_bundle: Path) -> None:
    manifest = json.loads((encodec_bundle / "manifest.json").read_text())
    assert manifest["format_version"] == 3  # an earlier dmcodec would take the codec for one that is not causal
    assert manifest["config"]["causal"] is True
    assert manifest["config"]["bidirectional"] is False
    assert manifest["config"]["bandwidths_kbps"] == [0.9, 3.6]
    config = Bundle.open(encodec_bundle).manifest.config
    assert (config.sample_rate, config.frame_rate, config.n_q) == (24000, 75, 8)
    older = json.loads((tiny_bundle / "manifest.json").read_text())
    assert older["format_version"] == 2
    assert "causal" not in older["config"]
    assert not Bundle.open(tiny_bundle).manifest.config.causal


def test_bandwidths_are_numbers_of_levels(encodec_model: Any, codec: Codec) -> None:
    assert codec.levels_of_bandwidth == {0.9: 2, 3.6: 8}
    assert ENCODEC_24KHZ.levels_of_bandwidth == {1.5: 2, 3.0: 4, 6.0: 8, 12.0: 16, 24.0: 32}
    clip = noise(9000)
    for kbps, n_q in codec.levels_of_bandwidth.items():
        tokens = codec.encode(clip, 24000, n_q=n_q)
        assert tokens.bitrate_bps == 1000 * kbps
        np.testing.assert_array_equal(tokens.codes, encoded(encodec_model, clip, kbps))


# Layouts and dialects


def as_file(state: dict[str, Any], folder: Path) -> None:
    torch.save(state, folder / "encodec_24khz-0123abcd.th")


def folded(model: Any) -> dict[str, Any]:
    """Without weight norm: it was folded into the weights."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("original1"):
            norm = torch.linalg.vector_norm(tensor, dim=(1, 2), keepdim=True)
            g = model.state_dict()[name.replace("original1", "original0")]
            state[name.replace("parametrizations.weight.original1", "weight")] = g * tensor / norm
        elif not name.endswith("original0"):
            state[name] = tensor
    return state


def older(model: Any) -> dict[str, Any]:
    """With the names of weight norm before torch's parametrizations."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for name, tensor in model.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        state[name] = tensor
    return state


LAYOUTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "Meta's": in_metas_layout,
    "Meta's, inside another dictionary": lambda model: {"best_state": in_metas_layout(model), "epoch": 3},
    "older names of weight norm": older,
    "a part of MusicGen": lambda model: {f"audio_encoder.{name}": value for name, value in older(model).items()},
    "half precision": lambda model: {name: value.half().float() for name, value in model.state_dict().items()},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_one_model(name: str, encodec_model: Any, encodec_folder: Path, tmp_path: Path) -> None:
    as_file(LAYOUTS[name](encodec_model), tmp_path)
    shutil.copy(encodec_folder / "config.json", tmp_path)
    same = model_id(DMCodec.from_checkpoint(None, tmp_path)) == model_id(DMCodec.from_checkpoint(None, encodec_folder))
    assert same == (name != "half precision")


def test_folded_weights(encodec_model: Any, encodec_folder: Path, tmp_path: Path) -> None:
    as_file(folded(encodec_model), tmp_path)
    own = DMCodec.from_checkpoint(encodec_folder, tmp_path)
    clip = noise(3000)
    np.testing.assert_array_equal(own.encode(torch.from_numpy(clip)[None, None])[:, 0], encoded(encodec_model, clip))


def test_shards_and_two_formats_beside_each_other(encodec_model: Any, encodec_folder: Path, tmp_path: Path) -> None:
    encodec_model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    torch.save({"not": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert model_id(DMCodec.from_checkpoint(None, tmp_path)) == model_id(DMCodec.from_checkpoint(None, encodec_folder))
    next(tmp_path.glob("model-00001*")).unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"is missing; model\.safetensors\.index\.json names it"):
        DMCodec.from_checkpoint(None, tmp_path)


def test_metas_file_without_a_configuration_is_known_by_its_shapes(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = DMCodec(ENCODEC_24KHZ).state_dict()
    torch.save(
        {name: torch.ones(tensor.shape, dtype=torch.float16) for name, tensor in state.items()}, tmp_path / "a.th"
    )
    assert DMCodec.from_checkpoint(None, tmp_path / "a.th").config == ENCODEC_24KHZ


def test_the_released_configuration_is_that_of_transformers(tmp_path: Path) -> None:
    from transformers import EncodecConfig

    EncodecConfig().save_pretrained(tmp_path)
    assert CodecConfig.from_json(tmp_path) == ENCODEC_24KHZ
    values = config_values(tmp_path)  # as facebook/encodec_24khz has it: of an early version
    del values["use_conv_shortcut"]
    assert CodecConfig.from_dict(values) == ENCODEC_24KHZ
