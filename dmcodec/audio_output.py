"""Audio outputs: files that appear when they are complete, and streams."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import soundfile

from .errors import AudioError, OutputError
from .files import output_file
from .streams import AudioTarget, is_path, source_name, write_stream
from .waveforms import Waveform, as_array, to_pcm16

OUTPUT_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}

_BLOCK_FRAMES = 1 << 18
_UNKNOWN_BYTES = 0xFFFF_FFFF  # size in the header of a WAV of unknown length
_MAX_WAV_SAMPLES = (_UNKNOWN_BYTES - 1024) // 2


def write_audio(target: AudioTarget, waveform: Waveform, sample_rate: int, audio_format: str | None = None) -> None:
    """Write mono audio (samples,) as 16-bit WAV or FLAC, or as Ogg Vorbis; see `audio_writer`."""
    with audio_writer(target, sample_rate, audio_format, num_samples=len(waveform)) as write:
        write(waveform)


@contextmanager
def audio_writer(
    target: AudioTarget, sample_rate: int, audio_format: str | None = None, num_samples: int | None = None
) -> Iterator[Callable[[Waveform], None]]:
    """Yield a function that appends mono samples (samples,) to a file.

    A file appears when the block ends without an error; else nothing is left. A file object gets all bytes at the end
    of the block, but WAV to one that can't seek (a pipe) is written at once. 16-bit samples are rounded, and values
    outside [-1, 1] clipped.

    Args:
        target: path, or binary file object.
        sample_rate: in Hz.
        audio_format: "wav", "flac" or "ogg"; by default the suffix says it.
        num_samples: how many will be written, if that is known: for the header of a WAV to a pipe.

    Raises:
        OutputError: an unknown format or suffix, a file that can't be written, or more than a WAV file holds.
        AudioError: NaN or infinite values.
        ArgumentError: no path and no file object.
    """
    if not is_path(target):
        file = cast(BinaryIO, target)
        kind = output_format(Path(source_name(target)), audio_format or "wav" if _is_nameless(target) else audio_format)
        with _to_stream(file, kind, sample_rate, num_samples) as write:
            yield write
        return
    path = Path(cast(str, target))
    kind = output_format(path, audio_format)
    with output_file(path) as temporary, _encoder(temporary, kind, sample_rate, str(path)) as write:
        yield write


def output_format(path: Path, audio_format: str | None = None) -> tuple[str, str]:
    """Return the format and the subtype of libsndfile for an output.

    Args:
        path: whose suffix says the format.
        audio_format: "wav", "flac" or "ogg", instead of the suffix.

    Raises:
        OutputError: an unknown suffix or format.
    """
    known = ", ".join(OUTPUT_FORMATS)
    if audio_format is not None:
        try:
            return OUTPUT_FORMATS[f".{audio_format.lower()}"]
        except (KeyError, AttributeError):
            raise OutputError(f"format {audio_format!r} is not known; use {known.replace('.', '')}") from None
    try:
        return OUTPUT_FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path}: audio is written as {known}, not {path.suffix!r}") from None


def wav_header(sample_rate: int, num_samples: int | None) -> bytes:
    """Return the 44 bytes of the header of a mono 16-bit WAV; with the largest sizes where the length is not known."""
    size = _UNKNOWN_BYTES if num_samples is None else min(_UNKNOWN_BYTES, 2 * num_samples)
    riff = min(_UNKNOWN_BYTES, size + 36)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def _is_nameless(target: Any) -> bool:
    name = getattr(target, "name", None)
    return not isinstance(name, str) or name.startswith("<") or not Path(name).suffix


@contextmanager
def _to_stream(
    file: BinaryIO, kind: tuple[str, str], sample_rate: int, num_samples: int | None
) -> Iterator[Callable[[Waveform], None]]:
    name = source_name(file)
    if kind[0] == "WAV" and not _can_seek(file):
        write_stream(file, wav_header(sample_rate, num_samples), name)
        yield lambda waveform: write_stream(file, to_pcm16(_finite(waveform, name)).astype("<i2").tobytes(), name)
        return
    with tempfile.TemporaryDirectory() as folder:  # a path: exceptions of Python's files are lost within libsndfile
        temporary = Path(folder, "audio")
        with _encoder(temporary, kind, sample_rate, name) as write:
            yield write
        with temporary.open("rb") as encoded:
            while data := encoded.read(_BLOCK_FRAMES):
                write_stream(file, data, name)


def _can_seek(file: BinaryIO) -> bool:
    try:
        return file.seekable()
    except (AttributeError, ValueError):
        return False


@contextmanager
def _encoder(target: Path, kind: tuple[str, str], sample_rate: int, name: str) -> Iterator[Callable[[Waveform], None]]:
    """Yield a function that appends samples to the file `target`; check afterwards that all are there."""
    file_format, subtype = kind
    path = os.fsencode(target)  # soundfile refuses names that are no UTF-8
    written = 0
    try:
        with soundfile.SoundFile(path, "w", sample_rate, 1, subtype, format=file_format) as file:

            def write(waveform: Waveform) -> None:
                nonlocal written
                waveform = _finite(waveform, name)
                written += len(waveform)
                if file_format == "WAV" and written > _MAX_WAV_SAMPLES:
                    raise OutputError(f"{name}: a WAV file holds at most 4 GiB; write FLAC")
                for start in range(0, len(waveform), _BLOCK_FRAMES):  # libsndfile crashes on minutes of Vorbis
                    block = waveform[start : start + _BLOCK_FRAMES]
                    file.write(to_pcm16(block) if subtype == "PCM_16" else np.clip(block, -1.0, 1.0))

            yield write
        complete = soundfile.info(path).frames == written  # a full disk is not always reported during writing
    except soundfile.SoundFileError:
        complete = False
    if not complete:
        raise OutputError(f"{name}: can't be written in full; check the disk and the rights")


def _finite(waveform: Any, name: str) -> Waveform:
    array = as_array(waveform, name, AudioError)
    if array.ndim != 1 or array.dtype.kind not in "fi":
        raise AudioError(f"{name}: expected mono samples (samples,) of floats, got {array.dtype} {array.shape}")
    samples: Waveform = array.astype(np.float32)
    if array.dtype == np.int16:
        samples /= 32768
    if not np.isfinite(samples).all():
        raise AudioError(f"{name}: holds NaN or infinite values")
    return samples
