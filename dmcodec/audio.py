"""Audio files: reading, writing, and conversion to the waveforms of the codec, mono float32 at its sample rate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from .audio_headers import check_complete
from .errors import AudioError, AudioFileNotFoundError, DmcodecError, OutputError
from .files import output_file

Waveform = NDArray[np.float32]

_UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's SF_COUNT_MAX
_BLOCK_FRAMES = 1 << 18
# No speech is recorded outside these, and resampling from 1 Hz would fill the memory.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 768_000

# Files that count as audio in a folder: formats of libsndfile.
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".rf64", ".caf"})
OUTPUT_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS")}


def read_audio(path: str | Path) -> tuple[NDArray[np.float32], int]:
    """Read a whole audio file.

    Returns:
        Samples (channels, samples) float32 in [-1, 1], and the sample rate of the file in Hz.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: not audio, empty, cut short, or changed while it was read.
    """
    with _opened(Path(path)) as file:
        return np.concatenate(list(_blocks(file, Path(path)))).T, file.samplerate


def read_blocks(
    path: str | Path, target_rate: int, progress: Callable[[float, float], None] | None = None
) -> Iterator[Waveform]:
    """Read an audio file as `read_audio` and `prepare_waveform` do, a few seconds at a time.

    Args:
        path: the file.
        target_rate: in Hz; resampled with soxr (high quality).
        progress: called with the seconds that are read, and the seconds in total.

    Yields:
        Blocks (samples,) of mono float32 at `target_rate`.

    Raises:
        AudioFileNotFoundError, AudioError: as for `read_audio`, or NaN or infinite values.
    """
    path = Path(path)
    with _opened(path) as file:
        rate, total_s, done = file.samplerate, file.frames / file.samplerate, 0
        resampler = _resampler(rate, target_rate)
        for block in _blocks(file, path):
            yield resampler(_mono(block.T, str(path)), False)
            done += len(block)
            if progress:
                progress(done / rate, total_s)
        yield resampler(np.zeros(0, np.float32), True)


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        problem = "is a folder, not an audio file" if os.path.isdir(path) else "no such audio file"  # noqa: PTH112
        raise AudioFileNotFoundError(f"{path}: {problem}")
    try:
        before = path.stat()
        with soundfile.SoundFile(os.fsencode(path)) as file:
            check_complete(path)
            _check_sample_rate(file.samplerate, str(path))
            if file.frames == _UNKNOWN_FRAMES:
                raise AudioError(
                    f"{path}: its length is unknown (was it written into a pipe?); convert it to WAV first"
                )
            yield file
        after = path.stat()
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path}: can't be read as audio ({_reason(error)})") from None
    except DmcodecError:
        raise
    except OSError as error:
        raise AudioError(f"{path}: can't be read ({error.strerror or error})") from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise AudioError(f"{path}: was changed while it was read; try again when it is complete")


def _blocks(file: soundfile.SoundFile, path: Path) -> Iterator[NDArray[np.float32]]:
    """Yield blocks (samples, channels).

    Memory grows with the samples that are read, not with the number in the header.
    """
    declared, done = file.frames, 0
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        done += len(block)
        yield block
    if done == 0:
        raise AudioError(f"{path}: holds no samples")
    if done < declared:
        raise AudioError(f"{path}: cut short, {done} of {declared} samples could be read")


def prepare_waveform(waveform: Any, sample_rate: int, target_rate: int, source: str = "waveform") -> Waveform:
    """Convert a waveform to mono float32 at `target_rate`.

    Args:
        waveform: (samples,) or (channels, samples); float32, float64 in [-1, 1], or int16, which is divided by 32768.
            Channels are averaged.
        sample_rate: of `waveform`, in Hz; resampled with soxr (high quality) if it differs from `target_rate`.
        target_rate: in Hz.
        source: name of the waveform in errors.

    Returns:
        (samples,) float32.

    Raises:
        AudioError: another shape or dtype, no samples, NaN or infinite values, or a sample rate out of range.
    """
    try:
        array = np.asarray(waveform)
    except ValueError as error:  # rows of different lengths
        raise AudioError(f"{source}: can't be converted to an array ({error})") from None
    _check_sample_rate(sample_rate, source)
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[0] <= 32):
        raise AudioError(f"{source}: expected shape (samples,) or (channels, samples), got {array.shape}")
    if array.shape[-1] == 0:
        raise AudioError(f"{source}: holds no samples")
    if array.dtype not in (np.int16, np.float32, np.float64):
        raise AudioError(f"{source}: expected float32, float64 or int16, got {array.dtype}")
    with np.errstate(over="ignore"):  # infinite values are refused below
        scaled: Waveform = array.astype(np.float32)
    if array.dtype == np.int16:
        scaled /= 32768
    mono = _mono(scaled, source)
    return np.ascontiguousarray(_resampler(int(sample_rate), target_rate)(mono, True))


def _check_sample_rate(sample_rate: Any, source: str) -> None:
    whole = isinstance(sample_rate, (int, np.integer)) and not isinstance(sample_rate, bool)
    if not whole or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{source}: sample_rate must be an integer from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, "
            f"not {sample_rate!r}"
        )


def _mono(samples: NDArray[np.float32], source: str) -> Waveform:
    """Average the channels: (samples,) or (channels, samples) -> (samples,); AudioError if a value is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        mono: Waveform = samples.mean(axis=0, dtype=np.float32) if samples.ndim == 2 else samples
    if not np.isfinite(mono).all():
        raise AudioError(f"{source}: holds NaN or infinite values (or values too large for float32)")
    return mono


def _resampler(sample_rate: int, target_rate: int) -> Callable[[Waveform, bool], Waveform]:
    """Return a function resample(samples, last) that takes the next samples and returns the resampled ones so far."""
    if sample_rate == target_rate:
        return lambda samples, _last: samples
    import soxr

    stream = soxr.ResampleStream(sample_rate, target_rate, 1, dtype="float32", quality="HQ")
    first: Waveform | None = None
    returned = 0

    def resample(samples: Waveform, last: bool) -> Waveform:
        nonlocal first, returned
        if first is None and len(samples):
            first = samples[:1]
        resampled: Waveform = stream.resample_chunk(samples, last=last)
        returned += len(resampled)
        # soxr rounds the length: of one or two samples nothing may remain
        return first if last and returned == 0 and first is not None else resampled

    return resample


def write_audio(path: str | Path, waveform: Waveform, sample_rate: int) -> None:
    """Write mono audio (samples,) as 16-bit WAV or FLAC, or as Ogg Vorbis, by the suffix; see `audio_writer`."""
    with audio_writer(path, sample_rate) as write:
        write(waveform)


@contextmanager
def audio_writer(path: str | Path, sample_rate: int) -> Iterator[Callable[[Waveform], None]]:
    """Yield a function that appends mono samples (samples,) to a file.

    The file appears when the block ends without an error; else nothing is left. Values outside [-1, 1] are clipped.

    Raises:
        OutputError: an unknown suffix, or a file that can't be written.
    """
    path = Path(path)
    file_format, subtype = output_format(path)
    written = 0
    with output_file(path) as temporary:
        try:
            with soundfile.SoundFile(os.fsencode(temporary), "w", sample_rate, 1, subtype, format=file_format) as file:

                def write(waveform: Waveform) -> None:
                    nonlocal written
                    written += len(waveform)
                    for start in range(0, len(waveform), _BLOCK_FRAMES):  # libsndfile crashes on minutes of Vorbis
                        file.write(np.clip(waveform[start : start + _BLOCK_FRAMES], -1.0, 1.0))

                yield write
            complete = (
                soundfile.info(os.fsencode(temporary)).frames == written
            )  # a full disk is not always reported during writing
        except soundfile.SoundFileError:
            complete = False
        if not complete:
            raise OutputError(f"{path}: can't be written in full; check the disk and the rights")


def output_format(path: Path) -> tuple[str, str]:
    """Return the format and the subtype of libsndfile for an output path; OutputError for an unknown suffix."""
    try:
        return OUTPUT_FORMATS[path.suffix.lower()]
    except KeyError:
        raise OutputError(f"{path}: audio is written as {', '.join(OUTPUT_FORMATS)}, not {path.suffix!r}") from None


def _reason(error: soundfile.SoundFileError) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".")
