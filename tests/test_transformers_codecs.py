"""Codecs of transformers as peers: their codes and audio are those of the library, and every wrong one is refused."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("transformers")

from peer_codecs import KINDS, extractor, write_codec

from dmcodec.benchmarks.codecs import transformers as peers
from dmcodec.benchmarks.codecs.interface import bitrate_bps
from dmcodec.benchmarks.codecs.named import Named
from dmcodec.benchmarks.codecs.registry import levels_to_report, open_codec
from dmcodec.benchmarks.codecs.transformers import TransformersCodec, open_transformers, result_name
from dmcodec.benchmarks.evaluate.columns import Clip, CodecSource, Original
from dmcodec.errors import ArgumentError, AudioError, MissingDependencyError, PretrainedModelError, TokensError
from dmcodec.sample import speech

HOPS = {"encodec": 320, "dac": 320, "mimi": 1920, "xcodec": 320}
LEVELS = {"encodec": 8, "dac": 3, "mimi": 4, "xcodec": 4}
BITS = {"encodec": 6, "dac": 5, "mimi": 5, "xcodec": 6}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("codecs")
    for kind in KINDS:
        write_codec(kind, root / kind)
    return root


@pytest.fixture(scope="module")
def codecs(folders: Path) -> dict[str, TransformersCodec]:
    return {kind: open_transformers(f"transformers:{folders / kind}") for kind in KINDS}


@pytest.fixture(scope="module", params=KINDS)
def opened(request: pytest.FixtureRequest, codecs: dict[str, TransformersCodec]) -> tuple[str, TransformersCodec]:
    return request.param, codecs[request.param]


@functools.cache
def model_of(folder: Path) -> Any:
    tf: Any = importlib.import_module("transformers")
    return tf.AutoModel.from_pretrained(folder).eval()


def reference(kind: str, folder: Path, waveform: Any, **choice: Any) -> tuple[Any, Any]:
    """Codes [n_q, frames] and audio (samples,) as a user of transformers gets them."""
    import torch

    tf: Any = importlib.import_module("transformers")
    model = model_of(folder)
    prepared = extractor(kind, tf)(waveform, sampling_rate=extractor(kind, tf).sampling_rate, return_tensors="pt")
    with torch.no_grad():
        values = {"input_values": prepared["input_values"].float(), **choice}
        encoded = model.encode(**values).audio_codes
        scales = {"audio_scales": [None]} if kind == "encodec" else {}
        audio = model.decode(audio_codes=encoded, **scales).audio_values
    return encoded.reshape(-1, encoded.shape[-1]).numpy(), audio.reshape(-1).numpy()[: len(waveform)]


def test_properties(opened: tuple[str, TransformersCodec]) -> None:
    kind, codec = opened
    rate = 16000 if kind == "xcodec" else 24000
    assert (codec.sample_rate, codec.hop_length, codec.n_q) == (rate, HOPS[kind], LEVELS[kind])
    assert codec.frame_rate == rate / HOPS[kind]
    assert bitrate_bps(codec, 2) == 2 * BITS[kind] * rate / HOPS[kind]
    assert codec.name == f"transformers:{kind}"
    assert "torch, fp32, cpu" in codec.description
    bandwidths = {"encodec": {0.9: 2, 1.8: 4, 3.6: 8}, "xcodec": {0.3: 1, 0.6: 2, 1.2: 4}}
    assert codec.bandwidths == bandwidths.get(kind, {})


@pytest.mark.parametrize("frames", [1, 1.003, 2, 3.6])
def test_codes_and_audio_are_those_of_the_library(
    opened: tuple[str, TransformersCodec], folders: Path, frames: float
) -> None:
    kind, codec = opened
    waveform = speech(40000, codec.sample_rate)[30000:][: round(frames * HOPS[kind])]
    choice = {"bandwidth": max(codec.bandwidths)} if codec.bandwidths else {}
    codes, audio = reference(kind, folders / kind, waveform, **choice)
    found = codec.encode(waveform[None, None])
    np.testing.assert_array_equal(found[:, 0], codes)
    assert found.dtype == np.int64
    assert len(np.unique(codes)) > 1
    decoded = codec.decode(found)
    assert (decoded.shape, decoded.dtype.name) == ((1, 1, found.shape[2] * HOPS[kind]), "float32")
    np.testing.assert_allclose(decoded[0, 0, : len(audio)], audio, atol=1e-6)
    assert not decoded[0, 0, len(audio) : len(waveform)].any()  # DAC makes a few samples less


def test_fewer_levels_are_the_first_ones(opened: tuple[str, TransformersCodec]) -> None:
    kind, codec = opened
    waveforms = speech(4 * 5000, codec.sample_rate).reshape(4, 1, 5000)[1:]
    codes = codec.encode(waveforms)
    assert codes.shape == (LEVELS[kind], 3, -(-5000 // HOPS[kind]))
    for n_q in range(1, LEVELS[kind] + 1):
        np.testing.assert_array_equal(codec.encode(waveforms, n_q), codes[:n_q])
        assert codec.decode(codes[:n_q]).shape == (3, 1, codes.shape[2] * HOPS[kind])
    for row in range(3):
        np.testing.assert_array_equal(codec.encode(waveforms[row : row + 1])[:, 0], codes[:, row])


def test_encodec_takes_the_smallest_bandwidth_that_has_the_levels(
    codecs: dict[str, TransformersCodec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codecs["encodec"]
    taken, encode = [], codec._model.encode

    def spied(waveforms: Any, bandwidth: float) -> Any:
        taken.append(bandwidth)
        return encode(waveforms, bandwidth=bandwidth)

    monkeypatch.setattr(codec._model, "encode", spied)
    for n_q in (1, 2, 3, 8):
        assert codec.encode(speech(2000, 24000)[None, None], n_q).shape == (n_q, 1, 7)
    assert taken == [0.9, 0.9, 1.8, 3.6]


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 16001, 31999])
def test_evaluate_gets_as_many_samples_as_it_gave(opened: tuple[str, TransformersCodec], samples: int) -> None:
    kind, codec = opened
    waveform = speech(32000, 16000)[:samples]
    source = CodecSource("x", Path("x"), codec, (1, 2))
    for name, made in source.reconstruct(Original(Clip("a", Path("a")), waveform[None], 16000, waveform)).items():
        assert len(made.waveform) == samples
        assert made.codes is not None
        assert made.codes.shape[0] == int(name[-1])
        assert made.codes.shape[1] == -(-samples * codec.sample_rate // (16000 * HOPS[kind]))


def test_levels_and_bandwidths_to_report(codecs: dict[str, TransformersCodec]) -> None:
    codec = codecs["encodec"]
    assert levels_to_report(codec, (), "x", (0.9, 1.35)) == (2, 3)
    assert levels_to_report(codec, (), "x") == (8,)
    for kbits in (1.0, 4.05, 0.1):
        with pytest.raises(ArgumentError, match=r"x has 1 to 8 levels of 0.45 kbit/s each, so at most 3.6 kbit/s"):
            levels_to_report(codec, (), "x", (kbits,))


def test_without_settings_of_an_extractor_the_configuration_has_the_rate(folders: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders / "encodec", tmp_path / "bare"))
    (folder / "preprocessor_config.json").unlink()
    assert open_transformers(f"transformers:{folder}").sample_rate == 24000
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(PretrainedModelError, match=r"preprocessor_config.json is damaged; fetch it again"):
        open_transformers(f"transformers:{folder}")
    (folder / "preprocessor_config.json").write_text('{"sampling_rate": 16000}')
    with pytest.raises(PretrainedModelError, match=r"is for 24000 Hz in its config.json, and for 16000 Hz"):
        open_transformers(f"transformers:{folder}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audio_channels": 2}, "is for 2 channels, mono codecs are measured"),
        ({"normalize": True}, "normalises their level"),
        ({"chunk_length_s": 1.0, "overlap": 0.01}, "cuts clips into pieces"),
    ],
)
def test_encodec_for_48_khz_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_codec("encodec", tmp_path / "model", **changes)
    with pytest.raises(PretrainedModelError, match=words):
        open_transformers(f"transformers:{tmp_path / 'model'}")


def test_models_that_are_no_codecs_are_refused(tmp_path: Path) -> None:
    tf: Any = importlib.import_module("transformers")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text(json.dumps(tf.GPT2Config(n_layer=1).to_dict()))
    with pytest.raises(PretrainedModelError, match="is a model of type gpt2, not a codec; name an audio codec"):
        open_transformers(f"transformers:{tmp_path / 'text'}")
    (tmp_path / "own").mkdir()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(own))
    with pytest.raises(PretrainedModelError, match="code of its own, which dmcodec does not run"):
        open_transformers(f"transformers:{tmp_path / 'own'}")
    if hasattr(tf, "VibeVoiceAcousticTokenizerConfig"):  # continuous latents
        (tmp_path / "latents").mkdir()
        values = tf.VibeVoiceAcousticTokenizerConfig().to_dict()
        (tmp_path / "latents" / "config.json").write_text(json.dumps(values))
        with pytest.raises(PretrainedModelError, match="does not encode and decode mono speech through codes"):
            open_transformers(f"transformers:{tmp_path / 'latents'}")


def test_models_that_are_not_there_or_damaged(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PretrainedModelError, match="there is no such folder"):
        open_transformers(f"transformers:{tmp_path}/nothing/here")
    with pytest.raises(PretrainedModelError, match=r"holds no config.json"):
        open_transformers(f"transformers:{tmp_path}")
    with pytest.raises(ArgumentError, match="'transformers:' names no model"):
        open_transformers("transformers:")
    folder = Path(shutil.copytree(folders / "dac", tmp_path / "damaged"))
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(PretrainedModelError, match="incomplete, damaged"):
        open_transformers(f"transformers:{folder}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r'needs transformers.*pip install "dmcodec\[evaluate\]"'):
        open_transformers(f"transformers:{folders / 'dac'}")


def test_offline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tf: Any = importlib.import_module("transformers")

    def unreachable(*_arguments: object, **_options: object) -> None:
        raise OSError("We couldn't connect to the hub to load the files")

    monkeypatch.setattr(tf.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(PretrainedModelError, match=r"codec 'org/codec' can't be loaded: .* the hub can't be reached"):
        open_transformers("transformers:org/codec")


def test_what_a_clip_does_to_a_codec_is_an_error_of_that_clip(
    codecs: dict[str, TransformersCodec], monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = codecs["mimi"]
    with pytest.raises(TokensError, match="can't decode 3 frames"):
        codec.decode(np.full((4, 1, 3), 99))
    monkeypatch.setattr(peers, "MAX_DURATION_S", 0.5)
    with pytest.raises(AudioError, match=r"longer than 0.5 s: transformers runs a clip in one piece"):
        codec.encode(np.zeros((1, 1, 12001), np.float32))
    monkeypatch.setattr(codec, "_encode", lambda *_: 1 / 0)
    with pytest.raises(AudioError, match=r"transformers:.*mimi can't encode 100 samples \(division by zero\)"):
        codec.encode(np.zeros((1, 1, 100), np.float32))


def test_names(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders)
    assert Named.parse("transformers:facebook/encodec_24khz").title == "encodec_24khz"
    assert Named.parse("X=transformers:org/v1.5") == Named(Path("transformers:org/v1.5"), "X")
    assert Named.parse("transformers:a=b").title == "a=b"
    assert result_name("transformers:org/v1.5") == "transformers:org/v1.5"
    assert result_name(f"transformers:{folders / 'dac'}") == "transformers:dac"
    assert result_name("transformers:./dac/") == "transformers:dac"
    codec = open_codec(Path("transformers:dac"), None, 1)
    assert isinstance(codec, TransformersCodec)


def test_evaluate_prints_levels_and_bitrates(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    pytest.importorskip("scipy")
    from dmcodec.cli import main

    (tmp_path / "ref").mkdir()
    soundfile.write(tmp_path / "ref" / "a.wav", speech(16000, 16000), 16000)
    command = ["dmcodec", "evaluate", "--reference", str(tmp_path / "ref"), "--metrics", "mel", "--jobs", "1", "--json"]
    codecs = [f"--codec=transformers:{folders / 'encodec'}", f"--codec=D=transformers:{folders / 'dac'}"]
    monkeypatch.setattr(sys, "argv", [*command, *codecs, "--n-q", "1,2"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    columns = [found["column"] for found in json.loads(capsys.readouterr().out)["columns"]]
    assert [(found["name"], found["bitrate_bps"]) for found in columns] == [
        ("encodec, n_q 1", 450), ("encodec, n_q 2", 900), ("D, n_q 1", 375), ("D, n_q 2", 750),
    ]  # fmt: skip
