"""Encodes that go on after an interruption of any kind, and what they refuse."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from platforms import posix

from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, AudioFileNotFoundError, OutputError
from dmcodec.export import export_bundle
from dmcodec.files import locked
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec
from dmcodec.runtime.resume import Record
from dmcodec.runtime.spool import Spool
from dmcodec.runtime.sweeps import Position
from dmcodec.sample import speech


class Stop(BaseException):
    """What Ctrl-C raises, for one test only."""


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty seconds at another sample rate than the codec's."""
    path = tmp_path_factory.mktemp("resume") / "speech.wav"
    soundfile.write(path, np.tile(speech(160000, 16000), 4), 22050)
    return path


@pytest.fixture(scope="module", params=["both directions", "one direction"])
def codec(request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    if request.param == "both directions":
        return Codec.load(tiny_bundle, threads=2)
    values = {**Codec.load(tiny_bundle).config.to_dict(), "bidirectional": False}
    path = tmp_path_factory.mktemp("one") / "bundle"
    export_bundle(DMCodec.seeded(CodecConfig.from_dict(values)), path)
    return Codec.load(path, threads=2)


def stop_after(calls: int) -> Callable[[float, float], None]:
    """Return a progress callback that stops the encode after some calls."""
    count = 0

    def report(_done_s: float, _total_s: float) -> None:
        nonlocal count
        count += 1
        if count > calls:
            raise Stop

    return report


@pytest.mark.parametrize("saved", ["at the stop", "each step", "each stage"])
def test_it_goes_on_from_any_stop(
    codec: Codec, audio: Path, tmp_path: Path, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not saved at the stop is as after kill -9: frames were written that the record doesn't count."""
    expected = codec.encode_file(audio, tmp_path / "whole.dmc")
    if saved != "at the stop":
        monkeypatch.setattr(Record, "_save_at_stop", lambda _self: None)
    if saved == "each step":
        monkeypatch.setattr("dmcodec.runtime.resume.SAVE_EVERY_S", 0.0)
    out = tmp_path / "out.dmc"
    for calls in (3, 8, 18, 8, 2, 4) if saved == "each stage" else (3, 8, 9, 2, 6, 2):
        with pytest.raises(Stop):
            codec.encode_file(audio, out, progress=stop_after(calls), resume=True)
        assert (tmp_path / "out.dmc.spool").is_dir()
        assert not out.exists()
    seen: list[float] = []
    tokens = codec.encode_file(audio, out, progress=lambda at, _total: seen.append(at), resume=True)
    assert tokens == expected
    assert out.read_bytes() == (tmp_path / "whole.dmc").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.dmc", "whole.dmc"]
    assert seen == sorted(seen)
    assert seen[0] > 14  # of 29 s: the features are there


def test_a_stop_without_resume_leaves_nothing(codec: Codec, audio: Path, tmp_path: Path) -> None:
    for calls in (2, 12):
        with pytest.raises(Stop):
            codec.encode_file(audio, tmp_path / "out.dmc", progress=stop_after(calls), spool=tmp_path)
        assert list(tmp_path.iterdir()) == []


def interrupted(codec: Codec, audio: Path, out: Path, calls: int = 10) -> Path:
    with pytest.raises(Stop):
        codec.encode_file(audio, out, progress=stop_after(calls), resume=True)
    return Path(f"{out}.spool")


@pytest.fixture
def half(codec: Codec, audio: Path, tmp_path: Path) -> Path:
    return interrupted(codec, audio, tmp_path / "out.dmc")


@pytest.mark.parametrize("change", ["time", "size", "source", "model"])
def test_the_progress_of_another_encode_is_refused(codec: Codec, audio: Path, tmp_path: Path, change: str) -> None:
    source, out = tmp_path / "in.wav", tmp_path / "out.dmc"
    shutil.copy2(audio, source)
    spool = interrupted(codec, source, out)
    words = {"time": "the time when", "size": "the size of", "source": "the audio file", "model": "the model"}
    if change == "time":
        os.utime(source, ns=(0, 0))
    elif change == "size":
        soundfile.write(source, np.zeros(300000, np.float32), 22050)
    elif change == "source":
        source = source.rename(tmp_path / "other.wav")
    else:
        manifest = dataclasses.replace(codec.bundle.manifest, model_id="0" * 16)
        codec = Codec(dataclasses.replace(codec.bundle, manifest=manifest), codec.backend)
    before = sorted(path.name for path in spool.iterdir())
    with pytest.raises(OutputError, match=rf"out\.dmc\.spool: .*another encode .*{words[change]}.*remove the folder"):
        codec.encode_file(source, out, resume=True)
    assert sorted(path.name for path in spool.iterdir()) == before


def test_a_record_that_is_no_record_is_refused(codec: Codec, audio: Path, half: Path) -> None:
    (half / "progress.npz").write_bytes(b"no record")
    with pytest.raises(OutputError, match=r"progress\.npz: can't be read .*remove the folder"):
        codec.encode_file(audio, half.with_suffix(""), resume=True)


@pytest.mark.parametrize("calls", [8, 18])
def test_a_spool_that_was_cut_is_refused(codec: Codec, audio: Path, tmp_path: Path, calls: int) -> None:
    spool = interrupted(codec, audio, tmp_path / "out.dmc", calls)
    for path in spool.glob("*.f32"):
        whole = path.read_bytes()
        path.write_bytes(whole[:1000])
        with pytest.raises(OutputError, match=rf"{path.name}: was cut or removed; remove the folder"):
            codec.encode_file(audio, tmp_path / "out.dmc", resume=True)
        path.unlink()
        with pytest.raises(OutputError, match=rf"{path.name}: was cut or removed; remove the folder"):
            codec.encode_file(audio, tmp_path / "out.dmc", resume=True)
        path.write_bytes(whole)


def test_two_processes_do_not_share_a_record(codec: Codec, audio: Path, half: Path) -> None:
    with locked(half / "lock"), pytest.raises(OutputError, match=r"out\.dmc\.spool: another process"):
        codec.encode_file(audio, half.with_suffix(""), resume=True)


def test_what_can_not_be_resumed(codec: Codec, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioFileNotFoundError, match="no such audio file"):
        codec.encode_file(tmp_path / "none.wav", tmp_path / "a.dmc", resume=True)
    with pytest.raises(ArgumentError, match="second run"):
        codec.encode_file(tmp_path, tmp_path / "a.dmc", resume=True)
    with pytest.raises(ArgumentError, match="resume needs out"):
        codec.encode_file(audio, resume=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        codec.encode_file(audio, tmp_path / "folder", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_short_clip_needs_no_progress(codec: Codec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(9000, 16000), 16000)
    tokens = codec.encode_file(tmp_path / "a.wav", tmp_path / "a.dmc", resume=True)
    assert tokens == codec.encode_file(tmp_path / "a.wav")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dmc", "a.wav"]


def test_the_position_is_saved_after_the_frames_that_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(Spool, "sync", lambda _self: calls.append("sync"))
    monkeypatch.setattr("dmcodec.runtime.resume.write_bytes", lambda *_arguments: calls.append("write"))
    with Record.open(tmp_path / "a.dmc", {}) as record:
        record.spool(0, 0)
        record.reach(Position(0, 5))
        assert calls == []  # it is saved now and then
        record.reach(Position(1))
        assert calls == ["sync", "write"]


@posix
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_goes_on_after_signals(tiny_bundle: Path, tmp_path: Path, stop: int) -> None:
    audio, out = tmp_path / "a.wav", tmp_path / "out.dmc"
    soundfile.write(audio, np.tile(speech(160000, 16000), 15), 16000)
    code = "import dmcodec.runtime.resume as r; r.SAVE_EVERY_S = 0.0; from dmcodec.cli import main; main()"
    command = [sys.executable, "-c", code, "encode", str(audio), "-o", str(out), "--bundle", str(tiny_bundle)]
    process = subprocess.Popen([*command, "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    record, deadline = tmp_path / "out.dmc.spool" / "progress.npz", time.monotonic() + 60
    while not record.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(stop)
    assert process.wait(60) not in (0, 2)
    assert record.exists()
    assert not out.exists()
    subprocess.run([*command, "--resume"], check=True, stdout=subprocess.DEVNULL)
    resumed = out.read_bytes()
    subprocess.run([*command, "--force"], check=True, stdout=subprocess.DEVNULL)
    assert out.read_bytes() == resumed
    assert not record.parent.exists()
