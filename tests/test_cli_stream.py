"""`dmcodec decode --stream`, as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from platforms import linux

from dmcodec.audio import read_audio
from dmcodec.config import CodecConfig
from dmcodec.runtime import Codec
from dmcodec.tokens import Tokens

DMCODEC = [sys.executable, "-c", "from dmcodec.cli import main; main()"]


@pytest.fixture(scope="module")
def dmc(tiny_bundle: Path, speech_wav: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens of two seconds of speech."""
    path = tmp_path_factory.mktemp("stream") / "a.dmc"
    Codec.load(tiny_bundle).encode_file(speech_wav, path)
    return path


def stream(tiny_bundle: Path, tokens: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [*DMCODEC, "decode", "--stream", "--bundle", str(tiny_bundle), *map(str, arguments)]
    return subprocess.run(command, input=tokens, capture_output=True, timeout=300)


def test_a_token_file_streams_to_wav(tiny_bundle: Path, dmc: Path, tmp_path: Path) -> None:
    Codec.load(tiny_bundle).decode_file(dmc, tmp_path / "whole.wav")
    expected, rate = soundfile.read(tmp_path / "whole.wav", dtype="int16")
    done = stream(tiny_bundle, dmc.read_bytes(), "--chunk-frames", 3)
    assert done.returncode == 0, done.stderr
    (tmp_path / "s.wav").write_bytes(done.stdout)
    got, got_rate = soundfile.read(tmp_path / "s.wav", dtype="int16")
    assert got_rate == rate
    np.testing.assert_allclose(got, expected, atol=2)  # of 32768


def test_raw_codes_stream_to_raw_samples(tiny_bundle: Path, dmc: Path, tmp_path: Path) -> None:
    tokens = Tokens.load(dmc)
    expected = Codec.load(tiny_bundle).decode(tokens)
    raw = tokens.codes.T.astype("<u2").tobytes()
    done = stream(tiny_bundle, raw, "--tokens", "u16", "--audio", "s16", "--chunk-frames", 1)
    samples = np.frombuffer(done.stdout, "<i2")
    assert len(samples) == tokens.num_frames * 320
    np.testing.assert_allclose(samples[: len(expected)], np.clip(expected, -1, 1) * 32767, atol=2)
    guessed = stream(tiny_bundle, raw, "--audio", "s16")
    np.testing.assert_allclose(np.frombuffer(guessed.stdout, "<i2").astype(int), samples, atol=2)
    done = stream(tiny_bundle, tokens.codes[:3].T.astype("<u2").tobytes(), "--tokens", "u16", "--n-q", 3)
    (tmp_path / "unknown.wav").write_bytes(done.stdout)
    assert read_audio(tmp_path / "unknown.wav")[0].shape == (1, tokens.num_frames * 320)


def test_audio_comes_out_before_the_tokens_end(tiny_bundle: Path) -> None:
    command = [*DMCODEC, "decode", "--stream", "--bundle", str(tiny_bundle), "--tokens", "u16", "--audio", "s16"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bytes(2 * 8 * 10))  # ten frames
        process.stdin.flush()
        assert len(process.stdout.read(2 * 320)) == 2 * 320
        process.stdin.close()
        assert len(process.stdout.read()) == 2 * 320 * 9


def test_bad_streams(tiny_bundle: Path, dmc: Path, tmp_path: Path, tiny_config: CodecConfig) -> None:
    good = dmc.read_bytes()
    Tokens.from_codes(np.zeros((8, 0), int), tiny_config).save(tmp_path / "empty.dmc")
    cases: list[tuple[bytes, tuple[object, ...], int, bytes]] = [
        (b"hello" * 20, (), 1, b"not a token file"),
        (good[:-50], (), 1, b"cut short"),
        (good[:-4] + b"\0\0\0\0", (), 1, b"checksum"),
        (good + b"x", (), 1, b"foreign bytes"),
        ((tmp_path / "empty.dmc").read_bytes(), (), 1, b"no frames"),
        (b"", (), 1, b"no frames"),
        (b"", ("--tokens", "dmc"), 1, b"not a token file"),
        (b"hello" * 3, (), 1, b"not a token file (.dmc), and as raw codes it"),
        (b"", ("--tokens", "u16"), 1, b"no frames"),
        (bytes(33), ("--tokens", "u16"), 1, b"within a frame"),
        (b"\xff" * 16, ("--tokens", "u16"), 1, b"outside 0 to 63"),
        (good, ("--n-q", 9), 2, b"n_q must be 1 to 8"),
        (good, ("--tokens", "json"), 2, b"--tokens"),
        (good, ("--audio", "mp3"), 2, b"--audio"),
        (good, ("--chunk-frames", 0), 2, b"--chunk-frames"),
        (good, ("-o", "x.wav"), 2, b"stdout"),
    ]
    for tokens, arguments, exit_code, words in cases:
        done = stream(tiny_bundle, tokens, *arguments)
        assert done.returncode == exit_code, (arguments, done.stderr)
        assert words in done.stderr
        assert b"Traceback" not in done.stderr


@linux
def test_a_full_disk_is_one_error(tiny_bundle: Path, dmc: Path) -> None:
    command = [*DMCODEC, "decode", "--stream", "--bundle", str(tiny_bundle)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, input=dmc.read_bytes(), stdout=full, stderr=subprocess.PIPE, timeout=300)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: stdout: can't be written")


def test_options_of_streams_need_stream(tiny_bundle: Path, dmc: Path, tmp_path: Path) -> None:
    command = [*DMCODEC, "decode", str(dmc), "-o", str(tmp_path / "b.wav"), "--bundle", str(tiny_bundle)]
    done = subprocess.run([*command, "--tokens", "u16"], capture_output=True, timeout=300)
    assert done.returncode == 2
    assert b"belong to --stream" in done.stderr
