"""`dmcodec decode --stream`: tokens on stdin, audio on stdout, while the tokens still come in."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from dmcodec.errors import ArgumentError, OutputError, TokensError

if TYPE_CHECKING:
    from dmcodec.audio import Waveform
    from dmcodec.codes import Codes
    from dmcodec.runtime import Codec

TOKEN_FORMATS = ("dmc", "u16")
AUDIO_FORMATS = ("wav", "s16")
MAX_CHUNK_FRAMES = 1500
_UNKNOWN_BYTES = 0xFFFF_FFFF  # what a WAV says that is written before its length is known


def check_formats(tokens: str, audio: str, chunk_frames: int) -> None:
    """Raises ArgumentError for a format that isn't known."""
    if tokens not in TOKEN_FORMATS:
        raise ArgumentError(f"--tokens {tokens!r} is not known; use one of {', '.join(TOKEN_FORMATS)}")
    if audio not in AUDIO_FORMATS:
        raise ArgumentError(f"--audio {audio!r} is not known; use one of {', '.join(AUDIO_FORMATS)}")
    if not 1 <= chunk_frames <= MAX_CHUNK_FRAMES:
        raise ArgumentError(f"--chunk-frames must be 1 to {MAX_CHUNK_FRAMES}, not {chunk_frames}")


def decode_stream(codec: Codec, tokens: str, audio: str, chunk_frames: int, n_q: int | None) -> None:
    """Decodes stdin to stdout.

    Args:
        codec: the codec.
        tokens: "dmc", a token file, or "u16", raw little-endian codes, frame by frame, within a frame level by level.
        audio: "wav" (16 bit; its header says that the length is unknown where it is) or "s16", raw 16-bit samples.
        chunk_frames: frames to wait for before decoding goes on.
        n_q: levels to use of a token file; levels in a frame of raw codes (all of the codec's by default).
    """
    if sys.stdin is None or sys.stdout is None:
        raise ArgumentError("--stream reads stdin and writes stdout, and one of them is closed")
    source, target = sys.stdin.buffer, sys.stdout.buffer
    if tokens == "dmc":
        num_samples, levels, first_level, chunks = _token_file(codec, source, n_q, chunk_frames)
    else:
        num_samples, levels, first_level = None, codec.n_q if n_q is None else n_q, 0
        chunks = _raw_codes(source, levels, chunk_frames)
    with codec.stream_decoder(levels, first_level) as stream:
        if audio == "wav":
            _write(target, _wav_header(codec.sample_rate, num_samples))
        left = num_samples
        for codes in chunks:
            left = _write_samples(target, stream.push(codes), left)
        if not stream.state.frames_in:
            raise TokensError("stdin: no frames to decode")
        _write_samples(target, stream.finish(), left)


def _token_file(
    codec: Codec, source: BinaryIO, n_q: int | None, chunk_frames: int
) -> tuple[int, int, int, Iterator[Codes]]:
    from dmcodec.token_file import TokenFileReader

    reader = TokenFileReader(source, "stdin")
    header = reader.header
    codec.check_origin(header)
    if n_q is not None and not 1 <= n_q <= header.n_q:
        raise ArgumentError(f"n_q must be 1 to {header.n_q} (the levels of these tokens), not {n_q}")
    levels = n_q or header.n_q
    chunks = (codes[:levels] for codes in reader.chunks(chunk_frames))
    return header.num_samples, levels, header.first_level, chunks


def _raw_codes(source: BinaryIO, n_q: int, chunk_frames: int) -> Iterator[Codes]:
    while data := source.read(2 * n_q * chunk_frames):
        if len(data) % (2 * n_q):
            raise TokensError(f"stdin: ends within a frame of {n_q} codes of 2 bytes; are there {n_q} levels (--n-q)?")
        yield np.frombuffer(data, "<u2").reshape(-1, n_q).T.astype(np.uint16)


def _wav_header(sample_rate: int, num_samples: int | None) -> bytes:
    size = _UNKNOWN_BYTES if num_samples is None else min(_UNKNOWN_BYTES, 2 * num_samples)
    riff = min(_UNKNOWN_BYTES, size + 36)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def _write_samples(target: BinaryIO, waveform: Waveform, left: int | None) -> int | None:
    """Writes samples, at most `left`, and returns how many are left."""
    waveform = waveform[:left]
    _write(target, np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes())
    return None if left is None else left - len(waveform)


def _write(target: BinaryIO, data: bytes) -> None:
    try:
        target.write(data)
        target.flush()
    except BrokenPipeError:
        raise  # whoever listened has gone: no error of ours
    except OSError as error:
        raise OutputError(f"stdout: can't be written ({error.strerror or error})") from error
