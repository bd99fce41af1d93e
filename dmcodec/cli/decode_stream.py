"""`dmcodec decode --stream`: tokens on stdin to audio on stdout, while tokens come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from dmcodec.errors import ArgumentError, TokensError
from dmcodec.token_file import MAGIC

from .stream_pipes import Rejoined, piped

if TYPE_CHECKING:
    from dmcodec.audio import Waveform
    from dmcodec.codes import Codes
    from dmcodec.runtime import Codec

TOKEN_FORMATS = ("dmc", "u16")
AUDIO_FORMATS = ("wav", "s16")
MAX_CHUNK_FRAMES = 1500


def check_formats(tokens: str | None, audio: str, chunk_frames: int) -> None:
    """Check the formats.

    Raises:
        ArgumentError: a format is not known, or chunk_frames is out of bounds.
    """
    if tokens is not None and tokens not in TOKEN_FORMATS:
        raise ArgumentError(f"--tokens {tokens!r} is not known; use one of {', '.join(TOKEN_FORMATS)}")
    if audio not in AUDIO_FORMATS:
        raise ArgumentError(f"--audio {audio!r} is not known; use one of {', '.join(AUDIO_FORMATS)}")
    if not 1 <= chunk_frames <= MAX_CHUNK_FRAMES:
        raise ArgumentError(f"--chunk-frames must be 1 to {MAX_CHUNK_FRAMES}, not {chunk_frames}")


def decode_stream(codec: Codec, tokens: str | None, audio: str, chunk_frames: int, n_q: int | None) -> None:
    """Decode stdin to stdout.

    Args:
        codec: the codec.
        tokens: "dmc", a token file, or "u16", little-endian 16-bit codes as `encode --stream` writes them: frame by
            frame, in a frame level by level. None to tell them apart by their first bytes.
        audio: "wav", 16 bit (for "u16" codes, the header has the largest size, since the length is unknown), or "s16",
            16-bit samples without a header.
        chunk_frames: frames to decode at a time; of raw codes fewer, where no more have come in yet.
        n_q: levels to use of a token file; levels in a frame of raw codes (default: all of the codec's).

    Raises:
        ArgumentError: stdin or stdout is closed or a terminal, or n_q doesn't fit the tokens.
        TokensError: stdin holds no frames, or ends within one.
        OutputError: stdout cannot be written to.
    """
    from dmcodec.audio_output import wav_header
    from dmcodec.streams import write_stream

    stdin, target = piped("tokens", "audio")
    # As codes these bytes are 17545 and 17229, more than any codebook has that a training makes.
    head = b"" if tokens else stdin.read(len(MAGIC))
    source = Rejoined(head, stdin)
    if tokens == "dmc" or head == MAGIC:
        num_samples, levels, first_level, chunks = _token_file_chunks(codec, source, n_q, chunk_frames)
    else:
        num_samples, levels, first_level = None, codec.n_q if n_q is None else n_q, 0
        chunks = _raw_chunks(source, levels, chunk_frames, codec.codebook_size if tokens is None else None)
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
    codec: Codec, source: Rejoined, n_q: int | None, chunk_frames: int
) -> tuple[int, int, int, Iterator[Codes]]:
    from dmcodec.token_file import TokenFileReader

    reader = TokenFileReader(cast(BinaryIO, source), "stdin")
    header = reader.header
    codec.check_origin(header)
    if n_q is not None and not 1 <= n_q <= header.n_q:
        raise ArgumentError(f"n_q must be 1 to {header.n_q} (the levels of these tokens), not {n_q}")
    levels = n_q or header.n_q
    chunks = (codes[:levels] for codes in reader.chunks(chunk_frames))
    return header.num_samples, levels, header.first_level, chunks


def _raw_chunks(source: Rejoined, n_q: int, chunk_frames: int, guessed_size: int | None) -> Iterator[Codes]:
    """Yield codes (n_q, frames) as they come in, at most `chunk_frames` at a time.

    Where it is only a guess that stdin holds raw codes, of a codebook of `guessed_size` entries, errors say so.
    """
    found = "stdin: " if guessed_size is None else "stdin: not a token file (.dmc), and as raw codes it "
    size, rest = 2 * n_q, b""
    while data := source.read1(chunk_frames * size - len(rest)):
        rest += data
        whole = len(rest) // size * size
        codes = np.frombuffer(rest[:whole], "<u2").reshape(-1, n_q).T.astype(np.uint16)
        rest = rest[whole:]
        if guessed_size and codes.size and codes.max() >= guessed_size:
            raise TokensError(f"{found}holds code {codes.max()}, outside 0 to {guessed_size - 1}")
        if codes.size:
            yield codes
    if rest:
        raise TokensError(f"{found}ends within a frame of {n_q} codes of 2 bytes; set the number of levels with --n-q")


def _write_samples(target: BinaryIO, waveform: Waveform, left: int | None) -> int | None:
    """Write at most `left` samples; return how many are left."""
    from dmcodec.streams import write_stream
    from dmcodec.waveforms import to_pcm16

    waveform = waveform[:left]
    write_stream(target, to_pcm16(waveform).astype("<i2").tobytes(), "stdout")
    return None if left is None else left - len(waveform)
