"""`dmcodec encode --stream`: raw samples on stdin to codes on stdout, while samples come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from dmcodec.errors import AudioError
from dmcodec.streams import write_stream

from .stream_pipes import available, ended_by_interrupt, piped

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dmcodec.codes import Codes
    from dmcodec.runtime import Codec

_READ_S = 0.1
# What audio files begin with.
_CONTAINERS = {b"RIFF": "WAV", b"RF64": "WAV", b"fLaC": "FLAC", b"OggS": "Ogg", b"FORM": "AIFF", b".snd": "AU"}


def encode_stream(
    codec: Codec, look_ahead_s: float | None, step_s: float | None, sample_rate: int | None, n_q: int | None
) -> None:
    """Encode stdin to stdout: 16-bit little-endian mono samples to codes, which `decode --stream` reads.

    The codes are little-endian 16-bit numbers, frame by frame, in a frame level by level. They are written as soon as
    they are final. Ctrl-C ends the clip as the end of stdin does.

    Args:
        codec: the codec.
        look_ahead_s, step_s: as for `Codec.stream_encoder`; None for its defaults.
        sample_rate: of the samples, in Hz (default: the codec's).
        n_q: levels to write (default: all).

    Raises:
        ArgumentError: stdin or stdout is closed or a terminal, or an argument is out of range.
        AudioError: stdin holds no samples, ends within one, or is an audio file instead of raw samples.
        OutputError: stdout can't be written to.
    """
    source, target = piped("raw 16-bit samples", "codes")
    stream = codec.stream_encoder(look_ahead_s, sample_rate, n_q, step_s=step_s)
    size = 2 * max(1, round(_READ_S * stream.sample_rate))
    with ended_by_interrupt(lambda: available(source, size)) as chunks:
        problem: AudioError | None = None
        try:
            for samples in _samples(chunks):
                _write_codes(target, stream.push(samples))
        except AudioError as error:
            problem = error
        _write_codes(target, stream.finish())
    if problem:
        raise problem


def _samples(chunks: Iterable[bytes]) -> Iterator[NDArray[np.int16]]:
    """Yield the samples of stdin; AudioError where it can't be raw samples."""
    rest, is_first = b"", True
    for chunk in chunks:
        rest += chunk
        if is_first and len(rest) < 4:
            continue
        if is_first and rest[:4] in _CONTAINERS:
            raise AudioError(
                f"stdin: is a {_CONTAINERS[rest[:4]]} file, and --stream reads raw 16-bit samples; "
                "leave --stream out for a file, or let the program before write raw samples"
            )
        is_first, whole = False, len(rest) // 2 * 2
        yield np.frombuffer(rest[:whole], "<i2").astype(np.int16)
        rest = rest[whole:]
    if is_first and not rest:
        raise AudioError("stdin: no samples to encode")
    if len(rest) > 1:
        yield np.frombuffer(rest[:2], "<i2").astype(np.int16)
    if len(rest) % 2:
        raise AudioError("stdin: ends within a sample of 2 bytes; --stream reads 16-bit mono samples without a header")


def _write_codes(target: BinaryIO, codes: Codes) -> None:
    if codes.shape[1]:
        write_stream(target, codes.T.astype("<u2").tobytes(), "stdout")
