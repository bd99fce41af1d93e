"""Audio files in and out, and waveforms as the codec wants them: mono float32 at its sample rate."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from dmcodec.errors import AudioError, AudioFileNotFoundError, OutputError
from dmcodec.files import write_bytes

Waveform = NDArray[np.float32]

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
    if not path.is_file():
        problem = "is a folder, not an audio file" if path.is_dir() else "no such audio file"
        raise AudioFileNotFoundError(f"{path}: {problem}")
    try:
        with soundfile.SoundFile(path) as file:
            _check_complete(path)
            _check_duration(path, file.frames / file.samplerate, max_duration_s)
            declared = file.frames
            data = file.read(dtype="float32", always_2d=True)
            sample_rate = file.samplerate
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
    array = np.asarray(waveform)
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)) or sample_rate < 1:
        raise AudioError(f"{source}: sample_rate must be a positive integer in Hz, not {sample_rate!r}")
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[0] <= 32):
        raise AudioError(f"{source}: expected shape (samples,) or (channels, samples), got {array.shape}")
    if array.shape[-1] == 0:
        raise AudioError(f"{source}: holds no samples")
    if array.dtype == np.int16:
        array = array.astype(np.float32) / 32768
    elif array.dtype in (np.float32, np.float64):
        array = array.astype(np.float32)
    else:
        raise AudioError(f"{source}: expected float32, float64 or int16, got {array.dtype}")
    if not np.isfinite(array).all():
        raise AudioError(f"{source}: holds NaN or infinite values (or values too large for float32)")
    mono = array.mean(axis=0, dtype=np.float32) if array.ndim == 2 else array
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
    soundfile.write(buffer, np.clip(waveform, -1.0, 1.0), sample_rate, format=file_format, subtype=subtype)
    write_bytes(path, buffer.getvalue())


def output_format(path: Path) -> tuple[str, str]:
    """libsndfile's format and subtype for an output path."""
    try:
        return OUTPUT_FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path}: audio is written as {', '.join(OUTPUT_FORMATS)}, not {path.suffix!r}") from None


def _check_duration(path: Path, duration_s: float, max_duration_s: float | None) -> None:
    if max_duration_s is not None and duration_s > max_duration_s:
        raise AudioError(
            f"{path}: {duration_s:.0f} s long, more than the {max_duration_s:.0f} s that are run in one piece; cut it into parts"
        )


def _check_complete(path: Path) -> None:
    """Refuses a WAV whose data chunk ends before its header says: libsndfile would read it as a shorter clip."""
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return
        size = path.stat().st_size
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                # Writers into a pipe can't know the length and leave 0 or the largest value.
                if length not in (0, 0xFFFFFFFF, 0x7FFFFFFF) and file.tell() + length > size:
                    missing = file.tell() + length - size
                    raise AudioError(f"{path}: cut short, {missing} of {length} bytes of its samples are missing")
                return
            file.seek(length + length % 2, io.SEEK_CUR)


def _reason(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
