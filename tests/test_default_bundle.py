"""The bundle that comes with dmcodec: small enough, in the wheel, and what runs where none is named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from platforms import posix

from dmcodec.benchmarks.evaluate.signal_metrics import pesq_wb, stoi
from dmcodec.benchmarks.verify.conformance_suite import suite_folder
from dmcodec.bundle import Bundle, read_manifest
from dmcodec.cli import export, main
from dmcodec.errors import ArgumentError, TokensError
from dmcodec.runtime import Codec, Tokens, default_bundle_path
from dmcodec.runtime.tensorrt import engine_store
from dmcodec.sample import SPEECH_FILE, speech

MOST_BYTES = 15_000_000
PROGRESS = re.compile(r".+: \d+ of \d+ after \d+ s")
# Neither torch nor what comes with it, and no network.
BARE = """
import socket, sys
for name in ("torch", "onnx", "platformdirs", "safetensors"):
    sys.modules[name] = None
def refuse(*arguments): raise OSError("no network")
socket.socket.connect = refuse
"""


def bare(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def dmcodec(*arguments: object) -> str:
    done = bare("from dmcodec.cli import main; main()", *arguments)
    assert done.returncode == 0, done.stderr
    # On a busy machine, work of over 10 s reports its progress.
    assert [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)] == []
    return done.stdout


def test_it_is_whole_small_and_trained() -> None:
    bundle = Bundle.open(default_bundle_path())
    manifest = bundle.manifest
    files = [path for path in bundle.path.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    assert {path.name for path in files} == {"manifest.json", *(spec.file for spec in manifest.files)}
    assert (manifest.precision, manifest.arithmetic) == ("fp16-weights", "fp32")
    assert manifest.provenance["seed"] is None
    assert manifest.provenance["checkpoint_sha256"]
    assert not manifest.engines
    assert (manifest.config.sample_rate, manifest.config.hop_length, manifest.config.n_q) == (16000, 320, 8)
    assert manifest.parity["level0_agreement"] > 0.95


@posix
def test_the_wheel_carries_it(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    code = "from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", f"import sys; {code}", str(tmp_path)]
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("dmcodec", "export", "runtime", "benchmarks", "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).symlink_to(root / name)
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    for folder in (default_bundle_path(), suite_folder()):
        inside = {
            Path(name).name: info.file_size
            for info in zipfile.ZipFile(wheel).infolist()
            if (name := info.filename).startswith(f"dmcodec/data/{folder.name}/")
        }
        assert inside == {path.name: path.stat().st_size for path in folder.iterdir()}


def test_the_runtime_loads_it_without_torch_and_without_the_command_line() -> None:
    code = """
sys.modules["typer"] = sys.modules["rich"] = None
import numpy as np
from dmcodec.runtime import Codec
from dmcodec.sample import speech
codec = Codec.load(threads=1)
tokens = codec.encode(speech(16000, 16000), 16000)
print(tokens.codes.shape, len(codec.decode(tokens)))
"""
    done = bare(code)
    assert done.stdout == "(8, 50) 16000\n", done.stderr


def test_speech_comes_out_as_speech() -> None:
    """Trained: the spectrum of what comes out follows that of what went in, and of no other stretch of speech."""
    codec = Codec.load(threads=1)
    waveform = speech(5 * 16000, 16000)
    heard = codec.decode(codec.encode(waveform, 16000))
    before, after = (np.log(np.abs(np.fft.rfft(x.reshape(-1, 400) * np.hanning(400))) + 0.1) for x in (waveform, heard))
    before, after = before - before.mean(axis=0), after - after.mean(axis=0)
    own, *others = (np.corrcoef(np.roll(before, frames, 0).ravel(), after.ravel())[0, 1] for frames in (0, 20, 50, 100))
    assert own > 0.5
    assert max(others) < 0.25


def test_it_is_as_good_as_its_card_says() -> None:
    """On the ten seconds of LibriVox, which no training has heard."""
    codec = Codec.load(threads=1)
    waveform, _ = soundfile.read(SPEECH_FILE, dtype="float32")
    heard = codec.decode(codec.encode(waveform, 16000))
    assert stoi(waveform, heard) > 0.86
    assert pesq_wb(waveform, heard) > 1.5


def test_the_command_line_takes_it_where_no_bundle_is_named(tmp_path: Path) -> None:
    dmc, out, again = tmp_path / "a.dmc", tmp_path / "a.wav", tmp_path / "b.wav"
    samples = soundfile.info(SPEECH_FILE).frames
    dmcodec("encode", SPEECH_FILE, "-o", dmc)
    dmcodec("decode", dmc, "-o", out)
    assert "kbit/s" in dmcodec("reconstruct", SPEECH_FILE, "-o", again)
    assert soundfile.info(out).frames == soundfile.info(again).frames == samples
    np.testing.assert_allclose(soundfile.read(out)[0], soundfile.read(again)[0], atol=1e-3)
    assert Tokens.load(dmc).model_id == Bundle.open(default_bundle_path()).manifest.model_id


def test_tokens_of_another_codec_are_refused(tiny_bundle: Path) -> None:
    theirs = Codec.load(tiny_bundle, threads=1).encode(speech(3200, 16000), 16000)
    with pytest.raises(TokensError, match="model"):
        Codec.load(threads=1).decode(theirs)


def test_streams_take_it(tmp_path: Path) -> None:
    tokens = Codec.load(threads=1).encode(speech(8000, 16000), 16000)
    tokens.save(tmp_path / "a.dmc")
    command = [sys.executable, "-c", BARE + "from dmcodec.cli import main; main()", "decode", "--stream"]
    done = subprocess.run(command, input=(tmp_path / "a.dmc").read_bytes(), capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 44 + 2 * 8000


def test_bench_verify_and_info_take_it_without_torch() -> None:
    values = json.loads(dmcodec("bench", "--duration", 0.5, "--batch", 1, "--rounds", 1, "--threads", 1, "--json"))
    assert values["bundle"]["path"] == str(default_bundle_path())
    assert values["bundle"]["size_bytes"] < MOST_BYTES
    values = json.loads(dmcodec("verify", "--threads", 1, "--json"))
    assert (values["passed"], values["bundle"]) == (True, str(default_bundle_path()))
    assert values["thresholds"]["latents_snr_db"] == 90  # its own graphs are the reference: nothing but arithmetic
    assert str(default_bundle_path()) in dmcodec("info")


def test_engines_and_model_repositories_start_from_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(export, "build_options", lambda **_options: None)
    monkeypatch.setattr(export, "triton_options", lambda **_options: None)
    monkeypatch.setattr(export, "export_engines", lambda bundle, *_others: asked.append(bundle))
    monkeypatch.setattr(export, "export_repository", lambda _out, bundle, *_others: asked.append(bundle))

    def call(*arguments: str) -> tuple[Any, str]:
        monkeypatch.setattr(sys, "argv", ["dmcodec", "export", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr().err

    assert call("--format", "trt") == (None, "")
    assert call("--out", "repository", "--format", "triton") == (None, "")
    assert asked == [default_bundle_path()] * 2
    for arguments, words in ((("--out", "new.bundle", "--format", "trt"), "--checkpoint"), ((), "--out")):
        code, errors = call(*arguments)
        assert code == 2
        assert words in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bench", "--size", "huge"), "--size 'huge' is not known; use one of small, full"),
        (("bench", "--bundle", "some.bundle", "--size", "full"), "name either a size or a bundle"),
    ],
)
def test_wrong_sizes(arguments: tuple[str, ...], words: str) -> None:
    done = bare("from dmcodec.cli import main; main()", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_the_full_size_needs_what_it_is_made_with() -> None:
    done = bare("from dmcodec.cli import main; main()", "bench", "--size", "full")
    assert done.returncode == 1
    assert 'pip install "dmcodec[cpu,export]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_its_engines_lie_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package isn't written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = read_manifest(default_bundle_path()).model_id
    assert engine_store.engine_folder(default_bundle_path(), None) == tmp_path / "dmcodec" / "engines" / model
    assert engine_store.engine_folder(default_bundle_path(), tmp_path / "x") == tmp_path / "x"
    assert engine_store.engine_folder(tmp_path, None) == tmp_path / "engines"


def test_a_missing_one_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmcodec.runtime.loading.default_bundle_path", lambda: tmp_path / "none.bundle")
    with pytest.raises(FileNotFoundError, match=r"none\.bundle: not a bundle, no such folder"):
        Codec.load()
    with pytest.raises(ArgumentError, match="not known"):
        Codec.load(backend="abacus")
