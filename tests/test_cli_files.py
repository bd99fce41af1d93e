"""Many files on the command line: what is bad harms only itself, what is done stays, names are any names."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from platforms import linux, posix

from dmcodec.cli import main
from dmcodec.runtime import Codec
from dmcodec.sample import speech
from dmcodec.tokens import Tokens

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], tiny_bundle: Path) -> Call:
    """Return what runs a verb with the tiny bundle in this process; it returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        words = ["dmcodec", *map(str, arguments), "--bundle", str(tiny_bundle), "--threads", "2"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            main()
        out, errors = (os.fsdecode(text) for text in capsysbinary.readouterr())
        code = caught.value.code
        return (code if isinstance(code, int) else 0), out, errors

    return run


def write(path: Path, seconds: float = 0.5, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        soundfile.write(file, speech(round(seconds * rate), rate), rate, format="WAV")
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Twenty clips of several lengths and rates, and one longer than half a minute."""
    lengths = np.random.default_rng(0).uniform(0.1, 1, 20)
    for index, seconds in enumerate(lengths):
        write(tmp_path / "in" / f"{index:02}.wav", seconds, [16000, 8000][index % 2])
    write(tmp_path / "in" / "12-long.wav", 31)
    return tmp_path / "in"


def test_a_folder_gives_what_each_file_gives_alone(call: Call, clips: Path, tiny_codec: Codec, tmp_path: Path) -> None:
    code, out, _ = call("encode", clips, "-o", tmp_path / "tokens")
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()[:-1]] == [
        str(tmp_path / "tokens" / f"{path.stem}.dmc") for path in sorted(clips.iterdir())
    ]
    assert out.splitlines()[-1].startswith("total: 21 files, ")
    for path in clips.iterdir():
        assert Tokens.load(tmp_path / "tokens" / f"{path.stem}.dmc") == tiny_codec.encode_file(path)
    assert call("decode", tmp_path / "tokens", "-o", tmp_path / "audio")[0] == 0
    assert call("reconstruct", clips, "-o", tmp_path / "again")[0] == 0
    for name in ("03", "17", "12-long"):
        call("decode", tmp_path / "tokens" / f"{name}.dmc", "-o", tmp_path / "one.wav", "--force")
        alone = (tmp_path / "one.wav").read_bytes()
        assert (tmp_path / "audio" / f"{name}.wav").read_bytes() == alone
        assert (tmp_path / "again" / f"{name}.wav").read_bytes() == alone


def test_several_processes_give_the_same(call: Call, clips: Path, tmp_path: Path) -> None:
    (clips / "07.wav").write_bytes(b"no audio")
    call("encode", clips, "-o", tmp_path / "one")
    code, out, _ = call("encode", clips, "-o", tmp_path / "two", "--jobs", 2, "--json")
    found = json.loads(out)
    assert code == 1
    assert [Path(each["input"]).name for each in found["failures"]] == ["07.wav"]
    inputs = [each["input"] for each in found["results"]]
    assert inputs == sorted(inputs)
    assert len(inputs) == 20
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert call("encode", clips, "-o", tmp_path / "x", "--jobs", 0)[0] == 2


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two good files, and one for each stage at which a file can be bad."""
    folder = tmp_path / "in"
    for name in ("a.wav", "there.wav", "same.wav", "z.wav", "same.flac", "x" * 251 + ".wav"):
        write(folder / name)
    (folder / "text.wav").write_text("no audio")
    (folder / "gone.wav").symlink_to("nowhere")
    with (folder / "nan.wav").open("wb") as file:
        soundfile.write(file, np.full(9000, np.nan), 16000, subtype="FLOAT", format="WAV")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "there.dmc").write_bytes(b"precious")
    (tmp_path / "out" / "no.dmc").mkdir()
    write(folder / "no.wav")
    return folder


@posix
def test_what_is_bad_at_any_stage_stops_nothing_else(call: Call, mixed: Path, tmp_path: Path) -> None:
    arguments = ("encode", mixed, tmp_path / "missing.wav", tmp_path / "*.none", "-o", tmp_path / "out", "--json")
    code, out, errors = call(*arguments)
    found = json.loads(out)
    assert code == 1
    assert [Path(each["input"]).name for each in found["results"]] == ["a.wav", "x" * 251 + ".wav", "z.wav"]
    reasons = {Path(each["input"]).name: each["error"] for each in found["failures"]}
    words = {
        "missing.wav": "no such audio file", "*.none": "no files match", "text.wav": "can't be read as audio",
        "gone.wav": "no such audio file", "nan.wav": "NaN", "there.wav": "exists already", "no.wav": "exists already",
        "same.wav": "would both be written", "same.flac": "would both be written",
    }  # fmt: skip
    assert set(reasons) == set(words)
    for name, reason in reasons.items():
        assert words[name] in reason
    assert "error: 9 of 12 files failed" in errors
    assert errors.count("error: ") == 10
    assert found["total"]["files"] == 3
    assert found["total"]["failures"] == 9
    assert (tmp_path / "out" / "there.dmc").read_bytes() == b"precious"


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("verb", ["encode", "reconstruct"])
def test_a_warning_names_its_file_once(
    tmp_path: Path,
    tiny_bundle: Path,
    verb: str,
    jobs: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also where several clips run in a batch, and in other processes."""
    wave = speech(8000, 16000)
    for name, data in (("quiet", wave), ("loud", wave * 32768), ("anti\nphase", np.stack([wave, -wave], 1))):
        (tmp_path / "in").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "in" / f"{name}.wav", data, 16000, "FLOAT")
    options = ["-o", str(tmp_path / "out"), "--jobs", str(jobs), "--bundle", str(tiny_bundle)]
    monkeypatch.setattr(sys, "argv", ["dmcodec", verb, str(tmp_path / "in"), *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    warned = sorted(capfd.readouterr().err.splitlines())
    assert [line.split(".wav: ")[0] for line in warned] == [
        rf"warning: {tmp_path / 'in' / 'anti'}\nphase", f"warning: {tmp_path / 'in' / 'loud'}"
    ]  # fmt: skip


def test_each_channel_is_an_output_of_its_own(call: Call, tmp_path: Path, tiny_codec: Codec) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write(folder / "mono.wav")
    waves = np.stack([speech(8000, 16000), speech(8000, 16000)[::-1]], 1)
    soundfile.write(folder / "two.wav", waves, 16000, "FLOAT")
    (folder / "bad.wav").write_text("no audio")
    arguments = ("encode", folder, "-o", out, "--channel", "each", "--json")
    code, text, _ = call(*arguments)
    found = json.loads(text)
    assert code == 1
    assert [(Path(each["output"]).name, each["channel"]) for each in found["results"]] == [
        ("mono.ch0.dmc", 0), ("two.ch0.dmc", 0), ("two.ch1.dmc", 1)
    ]  # fmt: skip
    assert [Path(each["input"]).name for each in found["failures"]] == ["bad.wav"]
    for channel in (0, 1):
        wave = np.ascontiguousarray(waves[:, channel], np.float32)
        assert Tokens.load(out / f"two.ch{channel}.dmc") == tiny_codec.encode(wave, 16000)
    (out / "two.ch0.dmc").unlink()
    found = json.loads(call(*arguments)[1])
    assert [Path(each["output"]).name for each in found["results"]] == ["two.ch0.dmc"]
    assert ["exists already" in each["error"] for each in found["failures"]].count(True) == 2
    (out / "two.ch1.dmc").unlink()
    found = json.loads(call(*arguments, "--skip-existing", "--jobs", 2)[1])
    assert [Path(each["output"]).name for each in found["results"]] == ["two.ch1.dmc"]
    assert len(found["skipped"]) == 2
    code, _, errors = call("reconstruct", folder, "-o", out, "--channel", -1)
    assert (code, errors.count("\n")) == (2, 1)


def test_what_only_the_extra_reads_is_left_out_by_its_name(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    write(tmp_path / "in" / "a.wav")
    (tmp_path / "in" / "only").mkdir()
    (tmp_path / "in" / "only" / "b.M4A").touch()
    code, out, errors = call("encode", tmp_path / "in", "-o", tmp_path / "out", "--json")
    assert code == 0
    [left_out] = json.loads(out)["left_out"]
    assert left_out["reason"] == 'needs PyAV: run `pip install "dmcodec[media]"`'
    assert f"note: left out: 1 ({left_out['reason']}): {tmp_path / 'in' / 'only' / 'b.M4A'}" in errors
    code, _, errors = call("encode", tmp_path / "in" / "only", "-o", tmp_path / "out")
    assert code == 1
    assert f"only: b.M4A {left_out['reason']}" in errors
    assert call("encode", tmp_path / "in" / "a.wav", "-o", "tokens.m4a")[0] == 2


def test_a_wrong_clip_in_a_batch_harms_only_itself(
    call: Call, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_prepared = Codec.encode_prepared

    def fails_for_one(self: Codec, waveforms: Any, *arguments: Any, **options: Any) -> Any:
        if any(len(waveform) == 8000 for waveform in waveforms):
            raise ValueError("a foreign error")
        return encode_prepared(self, waveforms, *arguments, **options)

    write(clips / "99.wav", 0.5)
    monkeypatch.setattr(Codec, "encode_prepared", fails_for_one)
    code, _, errors = call("encode", clips, "-o", tmp_path / "out")
    assert code == 1
    assert "99.wav: unexpected ValueError: a foreign error" in errors
    assert len(names(tmp_path / "out")) == 21


def test_skip_existing_goes_on(call: Call, clips: Path, tmp_path: Path, copy_of_tiny_bundle: Path) -> None:
    out = tmp_path / "out"
    call("encode", clips, "-o", out)
    kept = (out / "00.dmc").stat().st_mtime_ns
    (out / "01.dmc").unlink()
    (out / "02.dmc").write_bytes((out / "02.dmc").read_bytes()[:-3])
    (out / "03.dmc").write_bytes(b"")
    (out / "04.dmc").write_bytes(b"somebody's notes")
    Tokens.load(out / "05.dmc").levels(2).save(out / "05.dmc")
    code, text, errors = call("encode", clips, "-o", out, "--skip-existing", "--json")
    found = json.loads(text)
    assert code == 1
    assert [Path(each["output"]).name for each in found["results"]] == ["01.dmc", "02.dmc", "03.dmc"]
    assert len(found["skipped"]) == found["total"]["skipped"] == 16
    assert "04.dmc: exists, but is no token file" in errors
    assert "05.dmc: exists, but is of 2 levels" in errors
    assert (out / "04.dmc").read_bytes() == b"somebody's notes"
    assert (out / "00.dmc").stat().st_mtime_ns == kept
    assert call("encode", clips, "-o", out, "--skip-existing", "--force")[0] == 2
    code, text, _ = call("encode", clips / "00.wav", "-o", out / "00.dmc", "--skip-existing")
    assert (code, text) == (0, "total: 0 files, 0.0 s of audio, 0 failed, 1 skipped\n")


def test_skip_existing_of_audio(call: Call, clips: Path, tmp_path: Path) -> None:
    tokens, audio = tmp_path / "tokens", tmp_path / "audio"
    call("encode", clips / "0*.wav", "-o", tokens)
    call("decode", tokens, "-o", audio)
    (audio / "01.wav").write_bytes(b"")
    (audio / "02.wav").write_bytes(b"notes")
    shutil.copy(audio / "04.wav", audio / "03.wav")
    code, text, errors = call("decode", tokens, "-o", audio, "--skip-existing", "--json")
    assert code == 1
    assert [Path(each["output"]).name for each in json.loads(text)["results"]] == ["01.wav"]
    assert "02.wav: exists, but is no audio" in errors
    assert "03.wav: exists, but is not as long as" in errors
    code, text, _ = call("reconstruct", clips / "0*.wav", "-o", audio, "--skip-existing", "--json")
    assert len(json.loads(text)["skipped"]) == 9


def odd_names() -> Iterator[bytes]:
    yield from (b"caf\xe9.wav", b"two\nlines.wav", b"-dash.wav", "😀.wav".encode(), b"tab\tand [glob]*.wav", b"a.b.wav")
    yield b"\xff" * 251 + b".wav"


@linux
def test_any_name_works_to_the_end(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"in \xe8")
    for name in odd_names():
        write(folder / os.fsdecode(name))
    code, out, errors = call("encode", folder, "-o", tmp_path / "tokens", "--json")
    assert (code, json.loads(out)["failures"]) == (0, [])
    expected = sorted(name[:-4] + b".dmc" for name in odd_names())
    assert sorted(map(os.fsencode, names(tmp_path / "tokens"))) == expected
    code, out, errors = call("decode", tmp_path / "tokens", "-o", tmp_path / "audio")
    assert code == 0
    assert len(out.splitlines()) == len(expected) + 1
    (tmp_path / "tokens" / "two\nlines.dmc").write_bytes(b"")
    code, _, errors = call("decode", tmp_path / "tokens" / "two\nlines.dmc", "-o", tmp_path / "x.wav")
    assert (code, len(errors.splitlines())) == (1, 1)


@linux
def test_names_that_are_no_utf8_in_training_data(noise_recordings: Path, tmp_path: Path, call: Call) -> None:
    pytest.importorskip("pyarrow")
    from dmcodec.audio_sources import DatasetOptions, find_sources
    from dmcodec.training.data.dataset import PreparedData
    from dmcodec.training.data.prepare import PrepareSettings, prepare
    from dmcodec.transcripts import read_transcripts

    folder = Path(shutil.copytree(noise_recordings, tmp_path / "in"))
    (folder / "00.wav").rename(folder / os.fsdecode(b"caf\xe9.wav"))
    (folder / os.fsdecode(b"bad \xe9.wav")).write_bytes(b"no audio")
    sources = find_sources([str(folder), str(tmp_path / "missing.wav")], None, DatasetOptions())
    prepare(sources, tmp_path / "data", PrepareSettings(segment_s=1.0))
    manifest = PreparedData.open(tmp_path / "data").manifest
    assert {each.source for each in manifest.skipped} == {r"bad \xe9.wav", str(tmp_path / "missing.wav")}
    assert r"caf\xe9.wav" in {sources.get(index).name for index in range(sources.count)}
    table = tmp_path / "texts.tsv"
    table.write_bytes(b"caf\xe9.wav\ta text\n")
    assert [*read_transcripts(table, ValueError)] == [r"caf\xe9.wav"]  # type: ignore[arg-type]


def test_the_same_file_named_twice_is_done_once(call: Call, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    code, out, _ = call("encode", path, path, "-o", tmp_path / "out", "--json")
    assert (code, len(json.loads(out)["results"])) == (0, 1)


def test_the_folder_of_the_outputs_is_no_input(call: Call, tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    for _ in range(2):
        code, out, errors = call("reconstruct", tmp_path, "-o", tmp_path / "out", "--force", "--json")
        assert (code, names(tmp_path)) == (0, ["a.wav", "out/a.wav"])
    assert "the folder of the outputs" in errors
    assert json.loads(out)["left_out"][0]["path"] == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("verb", "out", "words"),
    [
        ("encode", "a.flac", "must not be called like audio"),
        ("encode", "b.m4a", "must not be called like audio"),
        ("decode", "b.dmc", "must not be called like tokens"),
        ("reconstruct", "b.dmc", "must not be called like tokens"),
        ("encode", "link.dmc", "is the input"),
        ("reconstruct", "a.wav", "is the input"),
    ],
)
def test_outputs_of_a_wrong_kind_are_refused(call: Call, tmp_path: Path, verb: str, out: str, words: str) -> None:
    source = write(tmp_path / "a.wav")
    os.link(source, tmp_path / "link.dmc")
    before = source.read_bytes()
    code, _, errors = call(verb, source, "-o", tmp_path / out, "--force")
    assert code == 2
    assert words in errors
    assert source.read_bytes() == before


def test_a_name_with_a_slash_at_its_end_is_a_folder(call: Call, tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    assert call("encode", tmp_path / "a.wav", "-o", f"{tmp_path}/out.v1/")[0] == 0
    assert names(tmp_path / "out.v1") == ["a.dmc"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["encode", "", "-o", "x"], "error: an argument is empty"),
        (["encode", "a.wav", "-o", ""], "error: -o: its value is empty"),
        (["decode", "a.dmc", "--out="], "error: --out: its value is empty"),
        (["reconstruct", "", "-o", "x"], "error: an argument is empty"),
    ],
)
def test_empty_names(call: Call, words: list[str], told: str) -> None:
    code, out, errors = call(*words)
    assert (code, out) == (2, "")
    assert errors.startswith(told)
    assert errors.count("\n") == 1
