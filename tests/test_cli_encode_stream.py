"""`dmcodec encode --stream`, as a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from live_streams import cut, streamed
from numpy.typing import NDArray
from platforms import linux, posix

from dmcodec.cli.signals import unwinding_signals
from dmcodec.cli.stream_pipes import Rejoined, ended_by_interrupt
from dmcodec.runtime import Codec
from dmcodec.sample import speech
from dmcodec.tokens import Tokens

DMCODEC = [sys.executable, "-c", "from dmcodec.cli import main; main()"]


def command(verb: str, bundle: Path, *arguments: object) -> list[str]:
    return [*DMCODEC, verb, "--stream", "--bundle", str(bundle), "--threads", "1", *map(str, arguments)]


def run(bundle: Path, samples: bytes, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command("encode", bundle, *arguments), input=samples, capture_output=True, timeout=300)


def pcm(num_samples: int, rate: int = 16000) -> NDArray[np.int16]:
    return (speech(num_samples, rate) * 32767).astype("<i2")


def test_the_codes_are_those_of_the_stream(tiny_bundle: Path, tiny_codec: Codec) -> None:
    for rate, arguments in ((16000, ()), (44100, ("--rate", 44100, "--look-ahead", 0.1, "--step", 0.2, "--n-q", 3))):
        samples = pcm(rate, rate)
        look_ahead_s, n_q = (0.1, 3) if arguments else (None, 8)
        step_s = 0.2 if arguments else 0.1
        expected = streamed(tiny_codec.stream_encoder(look_ahead_s, rate, n_q, step_s=step_s), cut(samples, [700]))
        done = run(tiny_bundle, samples.tobytes(), *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        np.testing.assert_array_equal(np.frombuffer(done.stdout, "<u2").reshape(-1, n_q).T, expected)


def test_codes_come_out_before_the_samples_end_and_decode_stream_reads_them(
    tiny_bundle: Path, tiny_codec: Codec
) -> None:
    stream, samples = tiny_codec.stream_encoder(0.1), pcm(16000)
    tokens = Tokens.from_codes(streamed(tiny_codec.stream_encoder(0.1), [samples]), tiny_codec.config)
    expected = tiny_codec.decode(tokens)
    encode = command("encode", tiny_bundle, "--look-ahead", 0.1)
    decode = command("decode", tiny_bundle, "--audio", "s16")
    with (
        subprocess.Popen(encode, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as encoder,
        subprocess.Popen(decode, stdin=encoder.stdout, stdout=subprocess.PIPE) as decoder,
    ):
        assert encoder.stdin is not None
        assert encoder.stdout is not None
        assert decoder.stdout is not None
        encoder.stdout.close()
        hop = tiny_codec.hop_length
        needed = stream.delay_samples + 4 * hop  # of the frame, and of those that the decoder waits for
        encoder.stdin.write(samples[: needed + hop].tobytes())
        encoder.stdin.flush()
        first = decoder.stdout.read(2 * hop)
        assert len(first) == 2 * hop
        encoder.stdin.write(samples[needed + hop :].tobytes())
        encoder.stdin.close()
        audio = np.frombuffer(first + decoder.stdout.read(), "<i2")
    assert (encoder.returncode, decoder.returncode) == (0, 0)
    np.testing.assert_allclose(audio[: len(expected)], np.clip(expected, -1, 1) * 32767, atol=2)


@posix
def test_ctrl_c_ends_the_clip(tiny_bundle: Path, tiny_codec: Codec) -> None:
    samples = pcm(12345)
    expected = streamed(tiny_codec.stream_encoder(0.1), [samples])

    def obey_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command("encode", tiny_bundle, "--look-ahead", 0.1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=obey_interrupts,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(samples.tobytes())
        process.stdin.flush()
        # All that is final without the end of the clip: then it waits for samples.
        ready = tiny_codec.stream_encoder(0.1).push(samples).size
        codes = process.stdout.read(2 * ready)
        process.send_signal(signal.SIGINT)
        codes += process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    np.testing.assert_array_equal(np.frombuffer(codes, "<u2").reshape(-1, 8).T, expected)


def test_bad_streams(tiny_bundle: Path) -> None:
    good = pcm(8000).tobytes()
    frames_of_good = run(tiny_bundle, good).stdout
    cases: list[tuple[bytes, tuple[object, ...], int, bytes, bytes]] = [
        (b"", (), 1, b"no samples", b""),
        (b"x", (), 1, b"within a sample", b""),
        (good + b"x", (), 1, b"within a sample", frames_of_good),  # what was whole is encoded
        (b"RIFF" + good, (), 1, b"is a WAV file", b""),
        (good, ("--rate", 10), 2, b"sample_rate must be", b""),
        (good, ("--look-ahead", -1), 2, b"look_ahead_s must be", b""),
        (good, ("-o", "x.dmc"), 2, b"takes no IN, --out", b""),
        (good, ("speech.wav",), 2, b"takes no IN, --out", b""),
        (good, ("--context-s", 1), 2, b"--context-s", b""),
    ]
    for samples, arguments, exit_code, words, out in cases:
        done = run(tiny_bundle, samples, *arguments)
        assert done.returncode == exit_code, (arguments, done.stderr)
        assert words in done.stderr
        assert b"Traceback" not in done.stderr
        assert done.stdout == out


@linux
def test_a_full_disk_and_a_closed_pipe(tiny_bundle: Path) -> None:
    samples = pcm(32000).tobytes()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("encode", tiny_bundle), input=samples, stdout=full, stderr=subprocess.PIPE, timeout=300
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: stdout: can't be written")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            command("encode", tiny_bundle), input=samples, stdout=closed, stderr=subprocess.PIPE, timeout=300
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: stdout: can't be written (its reader has ended")


@linux
@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_a_terminal_is_no_stream(verb: str, tiny_bundle: Path) -> None:
    import pty

    primary, secondary = pty.openpty()
    call = command(verb, tiny_bundle)
    try:
        reading = subprocess.run(call, stdin=secondary, capture_output=True, timeout=300)
        writing = subprocess.run(call, stdin=subprocess.DEVNULL, stdout=secondary, stderr=subprocess.PIPE, timeout=300)
    finally:
        os.close(primary)
        os.close(secondary)
    assert reading.returncode == writing.returncode == 2
    assert b"from stdin, which is a terminal" in reading.stderr
    assert b"to stdout, which is a terminal" in writing.stderr


def test_options_of_streams_need_stream(tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = ["encode", "a.wav", "-o", str(tmp_path / "a.dmc"), "--bundle", str(tiny_bundle), "--rate", "8000"]
    done = subprocess.run([*DMCODEC, *arguments], capture_output=True, timeout=300)
    assert done.returncode == 2
    assert b"belong to --stream" in done.stderr


def test_what_was_read_ahead_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(10)))
    for size in (1, 3, 4, 5, 20):
        with path.open("rb") as file:
            rejoined = Rejoined(file.read(4), file)
            assert rejoined.read(size) == bytes(range(min(size, 10)))
        with path.open("rb") as file:
            rejoined = Rejoined(file.read(4), file)
            parts = list(iter(partial(rejoined.read1, size), b""))
            assert b"".join(parts) == bytes(range(10))
            assert max(map(len, parts)) <= size


@posix
def test_the_first_ctrl_c_ends_and_the_second_interrupts() -> None:
    def read() -> bytes:
        signal.raise_signal(signal.SIGINT)
        return b"x"

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for around in (contextlib.nullcontext, unwinding_signals):  # the second one is what commands run in
            with around():
                before = signal.getsignal(signal.SIGINT)
                with ended_by_interrupt(lambda: b"x") as chunks:
                    assert next(chunks) == b"x"
                    signal.raise_signal(signal.SIGINT)  # during a push
                    assert list(chunks) == []
                    with pytest.raises(KeyboardInterrupt):
                        signal.raise_signal(signal.SIGINT)
                assert signal.getsignal(signal.SIGINT) is before
                with ended_by_interrupt(read) as chunks:
                    assert list(chunks) == []
    finally:
        signal.signal(signal.SIGINT, previous)
