"""SpeechTokenizer as its users have it (config.json and SpeechTokenizer.pt), against its own code.

`speechtokenizer_golden.npz` was made with the package speechtokenizer, by tests/data/make_speechtokenizer_golden.py.
Where the package is installed, it is compared with directly, too.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_server import running_hub
from numpy.typing import NDArray
from speechtokenizer_package import speechtokenizer_class

from dmcodec.bundle import Bundle
from dmcodec.cli import main
from dmcodec.errors import CheckpointError, ConfigError
from dmcodec.export.agreement import tied_frames
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec, Tokens
from dmcodec.sample import speech

GOLDEN = Path(__file__).parent / "data" / "speechtokenizer_golden.npz"
ATOL = 1e-5
Values = Mapping[str, NDArray[Any]]


@pytest.fixture(scope="module")
def golden() -> Values:
    return dict(np.load(GOLDEN))


@pytest.fixture(scope="module")
def release(golden: Values, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release, as `git clone` or the hub's cache leaves it."""
    folder = tmp_path_factory.mktemp("release") / "speechtokenizer_hubert_avg"
    folder.mkdir()
    shapes, state, start = json.loads(str(golden["shapes"])), {}, 0
    for name, shape, exponent in zip(json.loads(str(golden["names"])), shapes, golden["exponents"], strict=True):
        size = int(np.prod(shape))
        weights = golden["weights"][start : start + size].reshape(shape) * np.float32(2.0**exponent)
        state[name], start = torch.from_numpy(weights), start + size
        if name.endswith("_codebook.embed"):
            level = name.removesuffix("embed")
            state |= {f"{level}inited": torch.ones(1), f"{level}cluster_size": torch.full((shape[0],), 3.0)}
            state[f"{level}embed_avg"] = 3 * state[name]
    torch.save(state, folder / "SpeechTokenizer.pt")
    (folder / "config.json").write_text(str(golden["config"]))
    (folder / "README.md").write_text("# SpeechTokenizer")
    return folder


@pytest.fixture(scope="module")
def bundle(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release, exported by one command."""
    out = tmp_path_factory.mktemp("exported") / "st.bundle"
    call("export", "--checkpoint", release, "--out", out)
    return out


def call(*arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dmcodec", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
    assert not done.value.code


def lengths(golden: Values) -> list[int]:
    return sorted({int(name[3:].split("/")[0]) for name in golden if name.startswith("len")})


def waveform(golden: Values, length: int) -> NDArray[np.float32]:
    return (golden[f"len{length}/wav"] / np.float32(32768)).astype(np.float32)


def test_torch_gives_what_its_own_code_gives(golden: Values, release: Path) -> None:
    model = DMCodec.from_checkpoint(None, release)
    assert {1, 39, 40, 41} < set(lengths(golden))
    for length in lengths(golden):
        codes = model.encode(torch.from_numpy(waveform(golden, length))[None, None])
        np.testing.assert_array_equal(codes[:, 0].numpy(), golden[f"len{length}/codes"])
        for name, rows, first in (("audio", codes, 0), ("audio_of_2", codes[:2], 0), ("acoustic", codes[1:], 1)):
            audio = model.decode(rows, first)[0, 0].numpy()
            np.testing.assert_allclose(audio, golden[f"len{length}/{name}"], atol=ATOL, rtol=0)
        feature = model.semantic_features(torch.from_numpy(waveform(golden, length))[None, None])[0].numpy()
        np.testing.assert_allclose(feature, golden[f"len{length}/feature"], atol=ATOL, rtol=0)


def test_the_bundle_gives_it_too(golden: Values, bundle: Path) -> None:
    with Codec.load(bundle, threads=1) as codec:
        all_waveforms = [waveform(golden, length) for length in lengths(golden)]
        for length, tokens in zip(lengths(golden), codec.encode_batch(all_waveforms, 16000), strict=True):
            np.testing.assert_array_equal(tokens.codes, golden[f"len{length}/codes"])
            whole = Tokens.from_codes(golden[f"len{length}/codes"].astype(int), codec.config)
            for name, n_q in (("audio", None), ("audio_of_2", 2)):
                np.testing.assert_allclose(codec.decode(whole, n_q), golden[f"len{length}/{name}"], atol=1e-4, rtol=0)


def test_pulled_by_its_name(
    golden: Values, release: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("DMCODEC_CACHE", str(tmp_path / "cache"))
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        files = {
            f"{release.name}/{name}": (release / name).read_bytes() for name in ("config.json", "SpeechTokenizer.pt")
        }
        commit = hub.commit("fnlp/SpeechTokenizer", files)
        call("pull", "speechtokenizer")
    with Codec.load("speechtokenizer", threads=1) as codec:
        assert codec.bundle.manifest.model_id == Bundle.open(bundle).manifest.model_id
        tokens = codec.encode(waveform(golden, 1601), 16000)
        np.testing.assert_array_equal(tokens.codes, golden["len1601/codes"])
        record = json.loads((codec.bundle.path / "source.json").read_text())
    assert record["commit"] == commit
    assert record["sha256"] == hashlib.sha256((release / "SpeechTokenizer.pt").read_bytes()).hexdigest()


def test_other_releases_are_refused_with_the_reason(release: Path, tmp_path: Path) -> None:
    values = json.loads((release / "config.json").read_text())
    (tmp_path / "SpeechTokenizer.pt").write_bytes((release / "SpeechTokenizer.pt").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**values, "activation": "Snake"}))
    with pytest.raises(ConfigError, match="activation 'Snake' is not supported"):
        DMCodec.from_checkpoint(None, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**values, "dimension": 16}))
    with pytest.raises(CheckpointError, match="has shape"):
        DMCodec.from_checkpoint(None, tmp_path)


def test_a_checkpoint_of_its_trainer(release: Path, golden: Values, tmp_path: Path) -> None:
    state = torch.load(release / "SpeechTokenizer.pt", weights_only=True)
    other = {"mpd": {"convs.0.weight_v": torch.ones(3)}, "mstftd": {"conv.bias": torch.ones(3)}}
    content = {"generator": state, "discriminators": other, "optim_g": {"state": {0: {"step": 3.0}}}}
    torch.save({**content, "best_dev_mel_loss": 0.3}, tmp_path / "SpeechTokenizerTrainer_00100000")
    model = DMCodec.from_checkpoint(release / "config.json", tmp_path / "SpeechTokenizerTrainer_00100000")
    codes = model.encode(torch.from_numpy(waveform(golden, 800))[None, None])
    np.testing.assert_array_equal(codes[:, 0].numpy(), golden["len800/codes"])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_the_installed_package_agrees(golden: Values, tmp_path: Path) -> None:
    kind = speechtokenizer_class()
    if kind is None:
        pytest.skip("the package speechtokenizer is not installed: compared with its golden vectors only")
    config = {**json.loads(str(golden["config"])), "strides": [8, 5, 4, 2], "dimension": 16, "codebook_size": 64}
    torch.manual_seed(0)
    theirs = kind(config).eval()
    for level in theirs.quantizer.vq.layers:
        level._codebook.embed.normal_(std=0.4)
        level._codebook.inited.fill_(1)
    torch.save(theirs.state_dict(), tmp_path / "SpeechTokenizer.pt")
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = DMCodec.from_checkpoint(None, tmp_path)
    books = ours.quantizer.codebooks().numpy()
    with torch.inference_mode():
        for length in (1, 2, 7, 319, 320, 321, 4800, 16001):
            x = torch.from_numpy(np.stack([np.roll(speech(length, 16000), 7 * row) for row in range(3)]))[:, None]
            expected, codes = theirs.encode(x), ours.encode(x)
            ties = tied_frames(books, ours.encoder(x).numpy(), expected.numpy(), codes.numpy())
            assert not ((expected != codes).any(dim=0).numpy() & ~ties).any()
            np.testing.assert_allclose(ours.decode(expected), theirs.decode(expected), atol=ATOL, rtol=0)
            np.testing.assert_allclose(
                ours.decode(expected[2:], 2), theirs.decode(expected[2:], st=2), atol=ATOL, rtol=0
            )
