"""Audio files in and out, and waveforms as the codec wants them: mono float32 at its sample rate."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from dmcodec.errors import AudioError, AudioFileNotFoundError, OutputError
from dmcodec.files import write_bytes

Waveform = NDArray[np.float32]

_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX
_BLOCK_FRAMES = 1 << 18
_MAX_SAMPLE_RATE = 2**32 - 1
# Writers into a pipe can't know the length: ffmpeg writes 2**32 - 1, sox a little less than 2**31.
_UNKNOWN_LENGTH = 0x7FFF_0000

# What encoding reads: the containers of libsndfile that hold speech. Used to search folders.
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".rf64", ".caf"})
OUTPUT_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}


def read_audio(path: str | Path, max_duration_s: float | None = None) -> tuple[NDArray[np.float32], int]:
    """Reads an audio file.

    Returns:
        samples: (channels, samples) float32 in [-1, 1].
        sample_rate: of the file, in Hz.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: not audio, empty, cut short, or longer than `max_duration_s`.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        problem = "is a folder, not an audio file" if os.path.isdir(path) else "no such audio file"  # noqa: PTH112
        raise AudioFileNotFoundError(f"{path}: {problem}")
    try:
        with soundfile.SoundFile(path) as file:
            _check_complete(path)
            sample_rate = file.samplerate
            declared = file.frames
            if declared == _UNKNOWN_FRAMES:
                raise AudioError(f"{path}: doesn't say how long it is (written into a pipe?); convert it to WAV first")
            _check_duration(path, declared / sample_rate, max_duration_s)
            # Block by block: a header that claims too many samples must not cost their memory.
            blocks = [file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)]
            while len(blocks[-1]):
                blocks.append(file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True))
            data = np.concatenate(blocks)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path}: can't be read as audio ({_reason(error)})") from None
    except OSError as error:
        raise AudioError(f"{path}: can't be read ({error.strerror or error})") from None
    if len(data) == 0:
        raise AudioError(f"{path}: holds no samples")
    if len(data) < declared:
        raise AudioError(f"{path}: cut short, {len(data)} of {declared} samples could be read")
    return data.T, sample_rate


def prepare_waveform(waveform: Any, sample_rate: int, target_rate: int, source: str = "waveform") -> Waveform:
    """Makes mono float32 at `target_rate` of what a caller has.

    Args:
        waveform: (samples,) or (channels, samples); float32, float64 in [-1, 1], or int16, which is divided by 32768.
            Channels are averaged.
        sample_rate: of `waveform`, in Hz; resampled with soxr (high quality) where it differs from `target_rate`.
        source: names the waveform in errors.

    Returns:
        (samples,) float32.

    Raises:
        AudioError: another shape or type, no samples, NaN or infinite values.
    """
    try:
        array = np.asarray(waveform)
    except ValueError as error:  # rows of different lengths
        raise AudioError(f"{source}: can't be made an array ({error})") from None
    whole = isinstance(sample_rate, (int, np.integer)) and not isinstance(sample_rate, bool)
    if not whole or not 1 <= sample_rate <= _MAX_SAMPLE_RATE:
        raise AudioError(f"{source}: sample_rate must be an integer from 1 to 2**32 - 1 Hz, not {sample_rate!r}")
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[0] <= 32):
        raise AudioError(f"{source}: expected shape (samples,) or (channels, samples), got {array.shape}")
    if array.shape[-1] == 0:
        raise AudioError(f"{source}: holds no samples")
    if array.dtype not in (np.int16, np.float32, np.float64):
        raise AudioError(f"{source}: expected float32, float64 or int16, got {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):  # what isn't finite after it is refused
        scaled: Waveform = array.astype(np.float32)
        if array.dtype == np.int16:
            scaled /= 32768
        mono: Waveform = scaled.mean(axis=0, dtype=np.float32) if scaled.ndim == 2 else scaled
    if not np.isfinite(mono).all():
        raise AudioError(f"{source}: holds NaN or infinite values (or values too large for float32)")
    return np.ascontiguousarray(_resample(mono, int(sample_rate), target_rate), dtype=np.float32)


def _resample(mono: Waveform, sample_rate: int, target_rate: int) -> Waveform:
    if sample_rate == target_rate:
        return mono
    import soxr

    resampled: Waveform = soxr.resample(mono, sample_rate, target_rate, quality="HQ")
    if len(resampled) == 0:  # soxr rounds the length: a sample or two may become none
        resampled = mono[:1]
    return resampled


def write_audio(path: str | Path, waveform: Waveform, sample_rate: int) -> None:
    """Writes mono audio as 16-bit WAV or FLAC, or as Ogg Vorbis, by the suffix; values beyond [-1, 1] are clipped.

    Raises:
        OutputError: a suffix that isn't known, or a file that can't be written.
    """
    path = Path(path)
    file_format, subtype = output_format(path)
    buffer = io.BytesIO()  # libsndfile doesn't report a disk that fills up, so the bytes are written by files.py
    with soundfile.SoundFile(buffer, "w", sample_rate, 1, subtype, format=file_format) as file:
        for start in range(0, len(waveform), _BLOCK_FRAMES):  # libsndfile crashes on minutes of Vorbis in one call
            file.write(np.clip(waveform[start : start + _BLOCK_FRAMES], -1.0, 1.0))
    write_bytes(path, buffer.getvalue())


def output_format(path: Path) -> tuple[str, str]:
    """Libsndfile's format and subtype for an output path."""
    try:
        return OUTPUT_FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path}: audio is written as {', '.join(OUTPUT_FORMATS)}, not {path.suffix!r}") from None


def _check_duration(path: Path, duration_s: float, max_duration_s: float | None) -> None:
    if max_duration_s is not None and duration_s > max_duration_s:
        raise AudioError(
            f"{path}: {duration_s:.0f} s long, more than the {max_duration_s:.0f} s that are run in one piece; "
            "cut it into parts"
        )


def _check_complete(path: Path) -> None:
    """Refuses a file that ends before its header says: libsndfile would read it as a shorter clip."""
    with path.open("rb") as file:
        declared = _declared_bytes(file)
    if declared is not None and declared > path.stat().st_size:
        missing = declared - path.stat().st_size
        raise AudioError(f"{path}: cut short, {missing} of {declared} bytes are missing")


def _declared_bytes(file: BinaryIO) -> int | None:
    """Where the samples (or the whole file) end by the header of an uncompressed format; None where it doesn't say."""
    head = file.read(28)
    match head[:4]:
        case b"RIFF":
            return _end_of_data(file, 12, "<4sI", padding=2)
        case b"caff":
            return _end_of_data(file, 8, ">4sq", padding=1)
        case b"riff":  # Wave64
            return int.from_bytes(head[16:24], "little")
        case b"RF64":
            return 8 + int.from_bytes(head[20:28], "little")
        case b"FORM":  # AIFF
            start, length = 8, int.from_bytes(head[4:8], "big")
        case b".snd":  # AU
            start, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        case _:
            return None
    return start + length if length < _UNKNOWN_LENGTH else None


def _end_of_data(file: BinaryIO, start: int, chunk_head: str, padding: int) -> int | None:
    """Where the chunk named data ends by its head; chunks begin at `start`."""
    file.seek(start)
    size = struct.calcsize(chunk_head)
    while len(head := file.read(size)) == size:
        name, length = struct.unpack(chunk_head, head)
        if name == b"data":
            return file.tell() + int(length) if 0 <= length < _UNKNOWN_LENGTH else None
        file.seek(max(0, length) + length % padding, io.SEEK_CUR)
    return None


def _reason(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
