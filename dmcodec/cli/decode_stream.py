"""`dmcodec decode --stream`: tokens on stdin to audio on stdout, while tokens come in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from dmcodec.errors import ArgumentError, TokensError

if TYPE_CHECKING:
    from dmcodec.audio import Waveform
    from dmcodec.codes import Codes
    from dmcodec.runtime import Codec

TOKEN_FORMATS = ("dmc", "u16")
AUDIO_FORMATS = ("wav", "s16")
MAX_CHUNK_FRAMES = 1500


def check_formats(tokens: str, audio: str, chunk_frames: int) -> None:
    """Check the formats.

    Raises:
        ArgumentError: a format is not known, or chunk_frames is out of bounds.
    """
    if tokens not in TOKEN_FORMATS:
        raise ArgumentError(f"--tokens {tokens!r} is not known; use one of {', '.join(TOKEN_FORMATS)}")
    if audio not in AUDIO_FORMATS:
        raise ArgumentError(f"--audio {audio!r} is not known; use one of {', '.join(AUDIO_FORMATS)}")
    if not 1 <= chunk_frames <= MAX_CHUNK_FRAMES:
        raise ArgumentError(f"--chunk-frames must be 1 to {MAX_CHUNK_FRAMES}, not {chunk_frames}")


def decode_stream(codec: Codec, tokens: str, audio: str, chunk_frames: int, n_q: int | None) -> None:
    """Decode stdin to stdout.

    Args:
        codec: the codec.
        tokens: "dmc", a token file, or "u16", little-endian 16-bit codes: frame by frame, in a frame level by level.
        audio: "wav", 16 bit (for "u16" codes, the header has the largest size, since the length is unknown), or "s16",
            16-bit samples without a header.
        chunk_frames: frames to decode at a time.
        n_q: levels to use of a token file; levels in a frame of raw codes (default: all of the codec's).

    Raises:
        ArgumentError: stdin or stdout is closed, or n_q doesn't fit the tokens.
        TokensError: stdin holds no frames, or ends within one.
        OutputError: stdout cannot be written to.
    """
    from dmcodec.audio_output import wav_header
    from dmcodec.streams import write_stream

    if sys.stdin is None or sys.stdout is None:
        raise ArgumentError("--stream reads stdin and writes stdout, and one of them is closed")
    source, target = sys.stdin.buffer, sys.stdout.buffer
    if tokens == "dmc":
        num_samples, levels, first_level, chunks = _token_file_chunks(codec, source, n_q, chunk_frames)
    else:
        num_samples, levels, first_level = None, codec.n_q if n_q is None else n_q, 0
        chunks = _raw_chunks(source, levels, chunk_frames)
    with codec.stream_decoder(levels, first_level) as stream:
        if audio == "wav":
            write_stream(target, wav_header(codec.sample_rate, num_samples), "stdout")
        left = num_samples
        for codes in chunks:
            left = _write_samples(target, stream.push(codes), left)
        if not stream.state.frames_in:
            raise TokensError("stdin: no frames to decode")
        _write_samples(target, stream.finish(), left)


def _token_file_chunks(
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


def _raw_chunks(source: BinaryIO, n_q: int, chunk_frames: int) -> Iterator[Codes]:
    while data := source.read(2 * n_q * chunk_frames):
        if len(data) % (2 * n_q):
            raise TokensError(
                f"stdin: ends within a frame of {n_q} codes of 2 bytes; set the number of levels with --n-q"
            )
        yield np.frombuffer(data, "<u2").reshape(-1, n_q).T.astype(np.uint16)


def _write_samples(target: BinaryIO, waveform: Waveform, left: int | None) -> int | None:
    """Write at most `left` samples; return how many are left."""
    from dmcodec.streams import write_stream
    from dmcodec.waveforms import to_pcm16

    waveform = waveform[:left]
    write_stream(target, to_pcm16(waveform).astype("<i2").tobytes(), "stdout")
    return None if left is None else left - len(waveform)
