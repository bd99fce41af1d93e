"""File objects, pipes and devices as inputs and outputs, 16-bit samples, and what the command line says about them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sound_files import RATE, encoded, noise

from dmcodec.audio import channel_count, read_audio, read_blocks, to_pcm16, write_audio
from dmcodec.audio_output import audio_writer
from dmcodec.cli import main
from dmcodec.errors import ArgumentError, AudioError, AudioFileNotFoundError, AudioWarning, OutputError, TokenFileError
from dmcodec.runtime import Codec, Tokens
from dmcodec.streams import Input, PieceReader

posix = pytest.mark.skipif(sys.platform == "win32", reason="FIFOs are made by mkfifo")
CONTENTS = {kind: encoded(noise(8000), kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "W64")}
CODEC_CALL = [sys.executable, "-c", "from dmcodec.cli import main; main()"]


class Pipe(io.RawIOBase):
    """A stream that can't seek and returns less than it is asked for."""

    def __init__(self, content: bytes = b"", name: str | None = None) -> None:
        self._content, self.written = io.BytesIO(content), b""
        if name:
            self.name = name

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read(min(size, 777) if size >= 0 else 777)

    def write(self, data: Any) -> int:
        part = bytes(data[:5000])
        self.written += part
        return len(part)


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle, threads=1)


# Reading


@pytest.mark.parametrize("kind", CONTENTS)
def test_file_objects_are_read_as_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENTS[kind])
    expected, _ = read_audio(path)
    behind = io.BytesIO(b"header" + CONTENTS[kind])
    behind.seek(6)
    for source in (io.BytesIO(CONTENTS[kind]), Pipe(CONTENTS[kind]), behind):
        np.testing.assert_array_equal(read_audio(cast(BinaryIO, source))[0], expected)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        np.testing.assert_array_equal(np.concatenate(list(read_blocks(file, RATE))), expected[0])
        np.testing.assert_array_equal(read_audio(cast(BinaryIO, raw))[0], expected)


def test_errors_name_the_stream(tmp_path: Path) -> None:
    cut = CONTENTS["WAV"][:-1]
    for source, name in (
        (Pipe(cut, name="<stdin>"), "stdin"), (io.BytesIO(cut), "<BytesIO>"), (Pipe(cut, name="a.wav"), "a.wav"),
    ):  # fmt: skip
        with pytest.raises(AudioError, match=f"^{name}: cut short"):
            read_audio(cast(BinaryIO, source))
    closed = io.BytesIO(CONTENTS["WAV"])
    closed.close()
    with pytest.raises(AudioError, match="closed"):
        read_audio(closed)
    with (tmp_path / "t").open("w+") as text, pytest.raises(ArgumentError, match=r"text stream; give its \.buffer"):
        read_audio(text)  # type: ignore[arg-type]


@posix
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_fifo_is_read(tmp_path: Path, kind: str) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=lambda: fifo.write_bytes(CONTENTS[kind]))
    writer.start()
    samples, _ = read_audio(fifo)
    writer.join()
    np.testing.assert_array_equal(samples, read_audio(io.BytesIO(CONTENTS[kind]))[0])


@posix
def test_devices_are_refused() -> None:
    with pytest.raises(AudioError, match="is a device"):
        read_audio("/dev/null")
    with pytest.raises(AudioFileNotFoundError, match="is a folder"):
        read_audio("/dev")


@posix
def test_standard_input_by_its_path(tmp_path: Path, tiny_bundle: Path) -> None:
    for kind in ("WAV", "MP3"):
        out = tmp_path / f"{kind}.dmc"
        command = [*CODEC_CALL, "encode", "/dev/stdin", "-o", str(out), "--bundle", str(tiny_bundle)]
        subprocess.run(command, input=CONTENTS[kind], check=True, capture_output=True)
        assert Tokens.load(out).num_samples == 8000


@given(
    st.lists(st.one_of(st.binary(max_size=9), st.tuples(st.integers(0, 20), st.integers(0, 9))), max_size=6), st.data()
)
def test_pieces_are_one_file(pieces: list[bytes | tuple[int, int]], data: st.DataObject) -> None:
    content = bytes(range(30))
    whole = b"".join(each if isinstance(each, bytes) else content[each[0] : sum(each)] for each in pieces)
    reader = PieceReader(io.BytesIO(content), pieces)
    assert reader.read() == whole
    for _ in range(3):
        start, length = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 40))
        assert reader.seek(start) == start
        assert reader.read(length) == whole[start : start + length]
    assert Input(cast(BinaryIO, reader), "x").size == len(whole)


# Writing


@pytest.mark.parametrize("audio_format", ["wav", "flac", "ogg"])
def test_audio_is_written_to_file_objects(tmp_path: Path, audio_format: str) -> None:
    wave = noise(5000)
    write_audio(tmp_path / f"a.{audio_format}", wave, RATE)
    expected = read_audio(tmp_path / f"a.{audio_format}")[0]
    for target in (io.BytesIO(b""), Pipe()):
        write_audio(cast(BinaryIO, target), wave, RATE, audio_format)
        content = target.written if isinstance(target, Pipe) else target.getvalue()
        np.testing.assert_array_equal(read_audio(io.BytesIO(content))[0], expected)
    with (tmp_path / f"b.{audio_format}").open("wb") as file:  # its name says the format
        write_audio(file, wave, RATE)
    assert soundfile.info(tmp_path / f"b.{audio_format}").format == audio_format.upper()


def test_a_wav_to_a_pipe_is_written_at_once() -> None:
    pipe = Pipe()
    with audio_writer(cast(BinaryIO, pipe), RATE) as write:
        write(noise(100))
        assert len(pipe.written) == 44 + 200
        write(noise(7))
    assert pipe.written[40:44] == b"\xff" * 4
    assert read_audio(io.BytesIO(pipe.written))[0].shape == (1, 107)


def test_nothing_is_written_to_a_file_object_after_an_error() -> None:
    target = io.BytesIO()

    def fail() -> None:
        with audio_writer(target, RATE, "flac") as write:
            write(noise(100))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.getvalue() == b""
    with pytest.raises(OutputError, match="format 'mp3' is not known"):
        write_audio(target, noise(100), RATE, "mp3")
    for bad in (np.array([0, np.nan], np.float32), np.array([0, np.inf], np.float32)):
        with pytest.raises(AudioError, match="NaN"):
            write_audio(target, bad, RATE)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bit_samples_are_rounded(tmp_path: Path, suffix: str) -> None:
    wave = np.concatenate([noise(20000), np.array([-9, -1, 0, 1, 9, 32767 / 32768], np.float32)])
    write_audio(tmp_path / f"a{suffix}", wave, RATE)
    written, _ = soundfile.read(tmp_path / f"a{suffix}", dtype="int16")
    np.testing.assert_array_equal(written, np.clip(np.rint(wave.astype(np.float64) * 32768), -32768, 32767))
    np.testing.assert_array_equal(written, to_pcm16(wave))
    assert abs(np.mean(written[:-6] - wave[:-6] * 32768.0)) < 0.01
    again = read_audio(tmp_path / f"a{suffix}")[0][0]  # what was 16 bit stays as it is
    np.testing.assert_array_equal(to_pcm16(again), written)


def test_the_same_16_bits_everywhere(codec: Codec, tmp_path: Path, tiny_bundle: Path) -> None:
    tokens = codec.encode(noise(9000), RATE)
    tokens.save(tmp_path / "a.dmc")
    pipe, seekable = Pipe(), io.BytesIO()
    codec.decode_file(tokens, tmp_path / "a.wav")
    codec.decode_file(tmp_path / "a.dmc", cast(BinaryIO, pipe))
    codec.decode_file(io.BytesIO((tmp_path / "a.dmc").read_bytes()), seekable, format="flac")
    expected = to_pcm16(codec.decode(tokens))
    assert pipe.written[40:44] == (18000).to_bytes(4, "little")
    for content in ((tmp_path / "a.wav").read_bytes(), pipe.written, seekable.getvalue()):
        np.testing.assert_array_equal(soundfile.read(io.BytesIO(content), dtype="int16")[0], expected)


# Tokens and the codec


def test_tokens_in_file_objects(codec: Codec, tmp_path: Path) -> None:
    tokens = codec.encode_file(cast(BinaryIO, Pipe(CONTENTS["FLAC"])), tmp_path / "a.dmc")
    content = (tmp_path / "a.dmc").read_bytes()
    pipe, memory = Pipe(), io.BytesIO()
    tokens.save(cast(BinaryIO, pipe))
    codec.encode_file(io.BytesIO(CONTENTS["FLAC"]), memory)
    assert pipe.written == memory.getvalue() == content
    behind = io.BytesIO(b"abc" + content)
    behind.seek(3)
    for source in (Pipe(content), io.BytesIO(content), behind):
        assert Tokens.load(cast(BinaryIO, source)) == tokens
    for wrong, reason in ((content[:-1], "cut short"), (content + b"x", "followed by"), (b"", "is empty")):
        with pytest.raises(TokenFileError, match=f"^stdin: {reason}"):
            Tokens.load(cast(BinaryIO, Pipe(wrong, name="<stdin>")))


@posix
def test_tokens_from_a_fifo(codec: Codec, tmp_path: Path) -> None:
    tokens = codec.encode(noise(4000), RATE)
    tokens.save(tmp_path / "a.dmc")
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "a.dmc").read_bytes()))
    writer.start()
    assert Tokens.load(tmp_path / "pipe") == tokens
    writer.join()


# The command line


@pytest.fixture
def run(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dmcodec", *arguments, "--bundle", str(tiny_bundle)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


def test_channels_on_the_command_line(run: Callable[..., tuple[int, str, str]], codec: Codec, tmp_path: Path) -> None:
    both = np.stack([noise(8000), -noise(8000)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, RATE, "FLOAT")
    samples = read_audio(tmp_path / "a.wav")[0]
    assert channel_count(tmp_path / "a.wav") == 2
    code, output, errors = run("encode", "a.wav", "-o", "mean.dmc")
    assert code == 0
    assert errors.startswith("warning: a.wav: its 2 channels cancel each other")
    assert errors.count("\n") == 1
    assert "warning" not in output
    code, _, errors = run("encode", "a.wav", "-o", "one.dmc", "--channel", "1", "--json")
    assert (code, errors) == (0, "")
    assert Tokens.load(tmp_path / "one.dmc") == codec.encode(samples[1], RATE)
    code, output, errors = run("encode", "a.wav", "-o", "each.dmc", "--channel", "each")
    assert (code, errors) == (0, "")
    assert not (tmp_path / "each.dmc").exists()
    for index in (0, 1):
        assert Tokens.load(tmp_path / f"each.ch{index}.dmc") == codec.encode(samples[index], RATE)
        assert f"each.ch{index}.dmc: 0.50 s" in output
    code, _, errors = run("encode", "a.wav", "-o", "each.dmc", "--channel", "each")
    assert code == 1
    assert "each.ch0.dmc: exists already" in errors
    assert run("reconstruct", "a.wav", "-o", "b.wav", "--channel", "1")[::2] == (0, "")


@pytest.mark.parametrize(
    ("channel", "code", "reason"),
    [("2", 1, "a.wav: has no channel 2; it has 2 channels, numbers 0 to 1"), ("left", 2, "or each"), ("-1", 2, "-1")],
)
def test_channels_that_are_not_there(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, channel: str, code: int, reason: str
) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([noise(800), noise(800)], axis=1), RATE)
    got, _, errors = run("encode", "a.wav", "-o", "x.dmc", "--channel", channel)
    assert (got, errors.count("\n")) == (code, 1)
    assert reason in errors
    assert not (tmp_path / "x.dmc").exists()


def test_warnings_in_python_name_the_file(codec: Codec, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", noise(70000) * 32768, RATE, "FLOAT")
    with pytest.warns(AudioWarning, match=r"loud\.wav: holds values up to .* 16-bit integers") as caught:
        codec.encode_file(tmp_path / "loud.wav")
    assert len(caught) == 1


def test_a_folder_and_parquet_as_datasets_without_torchcodec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    from dmcodec.audio_sources import DatasetOptions, find_sources

    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "clips").mkdir()
    for index, kind in enumerate(("WAV", "FLAC", "MP3")):
        (tmp_path / f"clips/{index}.{kind.lower()}").write_bytes(CONTENTS[kind] * (2 if kind == "MP3" else 1))
    original = datasets.Audio.encode_example
    sources = find_sources([f"hf:{tmp_path / 'clips'}"], None, DatasetOptions())
    assert datasets.Audio.encode_example is original
    lengths = [sum(map(len, sources.get(index).read(RATE))) for index in range(sources.count)]
    assert lengths == [8000, 8000, 16000]
    rows = datasets.Dataset.from_list(
        [{"audio": {"bytes": content, "path": f"{name}.x"}} for name, content in CONTENTS.items()],
        features=datasets.Features({"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}}),
    ).cast_column("audio", datasets.Audio(decode=False))
    (tmp_path / "table").mkdir()
    rows.to_parquet(tmp_path / "table" / "train.parquet")
    sources = find_sources([f"hf:{tmp_path / 'table'}"], None, DatasetOptions())
    assert [sources.get(index).name for index in range(sources.count)] == [f"{name}.x" for name in CONTENTS]
    assert [sum(map(len, sources.get(index).read(RATE))) for index in range(sources.count)] == [8000] * len(CONTENTS)
