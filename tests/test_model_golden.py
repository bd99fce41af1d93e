"""The torch network and its exported graphs against golden values.

`upstream` was made with the authors' own code (beside the repository, so not everywhere); `tiny` lies in
tests/data and was made with this code once it agreed with upstream (tests/data/make_tiny_golden.py).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dmcodec.config import CodecConfig
from dmcodec.export import export_bundle
from dmcodec.export.agreement import tied_frames
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import load_state_dict
from dmcodec.runtime import Codec, Tokens

TINY = Path(__file__).parent / "data" / "tiny_golden.npz"
ATOL = 1e-4


@dataclasses.dataclass(frozen=True)
class Golden:
    model: DMCodec
    values: Mapping[str, NDArray[Any]]

    @property
    def lengths(self) -> list[int]:
        return sorted({int(name[3:].split("/")[0]) for name in self.values if name.startswith("len")})

    def waveform(self, length: int) -> NDArray[np.float32]:
        wav = self.values[f"len{length}/wav"]
        scale = np.float32(32768 if wav.dtype == np.int16 else 1)
        waveform: NDArray[np.float32] = wav.astype(np.float32) / scale
        return waveform

    def get(self, length: int, name: str) -> NDArray[Any]:
        return self.values[f"len{length}/{name}"]


def load_tiny() -> Golden:
    values = dict(np.load(TINY))
    model = DMCodec(CodecConfig.from_dict(json.loads(str(values["config"])))).eval()
    state = dict(model.state_dict())
    start = 0
    for name, shape, exponent in zip(
        json.loads(str(values["names"])), json.loads(str(values["shapes"])), values["exponents"], strict=True
    ):
        size = int(np.prod(shape))
        weights = values["weights"][start : start + size].reshape(shape)
        state[name] = torch.from_numpy(weights * np.float32(2.0**exponent))
        start += size
    assert start == values["weights"].size
    load_state_dict(model, state, source=TINY.name)
    return Golden(model, values)


def load_upstream(shared: Path) -> Golden:
    folder = shared / "golden"
    model = DMCodec.from_checkpoint(folder / "tiny_upstream.config.json", folder / "tiny_upstream.pt")
    return Golden(model, dict(np.load(folder / "tiny_upstream.npz")))


@pytest.fixture(scope="module", params=["tiny", "upstream"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return load_tiny() if request.param == "tiny" else load_upstream(request.getfixturevalue("shared"))


@pytest.fixture(scope="module")
def codec(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    bundle = export_bundle(golden.model, tmp_path_factory.mktemp("golden") / "bundle")
    return Codec.load(bundle.path)


def test_there_are_lengths_that_are_no_multiple_of_the_hop(golden: Golden) -> None:
    assert {1, 7, 319, 320, 321, 1601} <= set(golden.lengths)
    distinct = np.unique(np.concatenate([golden.get(length, "codes").ravel() for length in golden.lengths]))
    assert len(distinct) > 10  # constant values would test nothing


def test_torch_matches_the_golden_values(golden: Golden) -> None:
    for length in golden.lengths:
        waveform = torch.from_numpy(golden.waveform(length))[None, None]
        with torch.inference_mode():
            latents = golden.model.encoder(waveform)[0].numpy()
        np.testing.assert_allclose(latents, golden.get(length, "latents"), atol=ATOL, rtol=0)
        codes = golden.model.encode(waveform)
        ties = assert_same_codes(golden, length, codes[:, 0].numpy())
        expected = torch.from_numpy(golden.get(length, "codes").astype(np.int64))[: len(codes), None]
        audio = golden.model.decode(expected)[0, 0].numpy()
        np.testing.assert_allclose(audio, golden.get(length, "audio"), atol=ATOL, rtol=0)
        feature = golden.model.semantic_features(waveform)[0].numpy()
        np.testing.assert_allclose(feature[~ties], golden.get(length, "feature")[~ties], atol=ATOL, rtol=0)


def assert_same_codes(golden: Golden, length: int, codes: NDArray[Any]) -> NDArray[np.bool_]:
    """Compare codes (n, T) with the first n levels of the golden ones; return the frames (T,) that differ by a tie."""
    expected = golden.get(length, "codes")[: len(codes)].astype(np.int64)
    codebooks, latents = golden.model.quantizer.codebooks().numpy(), golden.get(length, "latents")
    ties = tied_frames(codebooks, latents[None], expected[:, None], codes.astype(np.int64)[:, None])[0]
    assert ties.mean() < 0.05
    np.testing.assert_array_equal(codes[:, ~ties], expected[:, ~ties])
    return ties


def test_three_levels(golden: Golden) -> None:
    lengths = [length for length in golden.lengths if f"len{length}/audio_nq3" in golden.values]
    assert len(lengths) >= 5
    for length in lengths:
        waveform = torch.from_numpy(golden.waveform(length))[None, None]
        codes = golden.model.encode(waveform, n_q=3)
        assert_same_codes(golden, length, codes[:, 0].numpy())
        expected = torch.from_numpy(golden.get(length, "codes").astype(np.int64))[: len(codes), None]
        audio = golden.model.decode(expected)[0, 0].numpy()
        np.testing.assert_allclose(audio, golden.get(length, "audio_nq3"), atol=ATOL, rtol=0)
        assert np.abs(audio - golden.get(length, "audio")).max() > 1e-6


def test_the_exported_graphs_match_them_too(golden: Golden, codec: Codec) -> None:
    config = codec.config
    for length in golden.lengths:
        waveform = golden.waveform(length)
        np.testing.assert_allclose(
            codec.latents(waveform, config.sample_rate), golden.get(length, "latents"), atol=ATOL, rtol=0
        )
        tokens = codec.encode(waveform, config.sample_rate)
        assert tokens.num_samples == length
        ties = assert_same_codes(golden, length, tokens.codes)
        if not ties.any():
            np.testing.assert_allclose(codec.decode(tokens), golden.get(length, "audio")[:length], atol=ATOL, rtol=0)
        whole_frames = Tokens.from_codes(golden.get(length, "codes").astype(int), config)
        np.testing.assert_allclose(codec.decode(whole_frames), golden.get(length, "audio"), atol=ATOL, rtol=0)
        if f"len{length}/audio_nq3" in golden.values:
            expected = golden.get(length, "audio_nq3")[:length]
            np.testing.assert_allclose(codec.decode(whole_frames, n_q=3)[:length], expected, atol=ATOL, rtol=0)
            first = codec.encode(waveform, config.sample_rate, n_q=3)
            np.testing.assert_array_equal(first.codes, tokens.codes[:3])


def test_names_and_shapes_are_those_of_the_released_checkpoint(shared: Path) -> None:
    expected = json.loads((shared / "golden" / "full_checkpoint_keys.json").read_text())
    with torch.device("meta"):
        state = DMCodec(CodecConfig()).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == expected
