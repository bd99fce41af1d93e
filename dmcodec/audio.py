"""Audio files: one reader for all verbs. What libsndfile would not read whole and right is found out first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from . import flac_frames, mp3_frames, ogg_pages
from .audio_headers import MENDERS, wav_mpeg
from .audio_output import OUTPUT_FORMATS, audio_writer, output_format, write_audio
from .errors import AudioError
from .media import MEDIA_SUFFIXES, MediaReader, check_sizes, media_format, media_installed
from .no_audio import refuse_no_audio
from .streams import AudioSource, Input, Piece, PieceReader, Scanner, joined, opened_input
from .waveforms import Mixer, Waveform, check_sample_rate, prepare_waveform, resampler, to_pcm16, warn

__all__ = [
    "AUDIO_SUFFIXES", "MEDIA_SUFFIXES", "OUTPUT_FORMATS", "AudioSource", "Waveform", "audio_needs", "audio_suffixes",
    "audio_writer", "channel_count", "output_format", "prepare_waveform", "read_audio", "read_blocks", "read_mono",
    "to_pcm16", "write_audio",
]  # fmt: skip

# Files that count as audio in a folder: formats of libsndfile.
AUDIO_SUFFIXES = frozenset({
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mpga", ".aiff",
    ".aif", ".aifc", ".au", ".snd", ".caf", ".sph", ".nist", ".voc",
})  # fmt: skip

_BLOCK_FRAMES = 1 << 18
_MPEG_SUFFIXES = (".mp3", ".mp2", ".mpga")
Block = NDArray[np.float32]
_Result = TypeVar("_Result")


def audio_suffixes() -> frozenset[str]:
    """Return the suffixes that count as audio in a folder, `MEDIA_SUFFIXES` included where the extra is installed."""
    return AUDIO_SUFFIXES | MEDIA_SUFFIXES if media_installed() else AUDIO_SUFFIXES


def audio_needs() -> Mapping[str, str]:
    """Return the suffixes of audio that isn't read here, each with what it needs; none where the extra is installed."""
    return {} if media_installed() else dict.fromkeys(MEDIA_SUFFIXES, 'needs PyAV: run `pip install "dmcodec[media]"`')


def read_audio(source: AudioSource) -> tuple[NDArray[np.float32], int]:
    """Read a whole audio file.

    Args:
        source: a path (also of a pipe), or a binary file object. Of a video the first sound track is read.

    Returns:
        Samples (channels, samples) float32 in [-1, 1], and the sample rate of the file in Hz. Where parts of a file
        differ (joined MP3s, for example), all have the sample rate of the first one, and are mono if the numbers of
        channels differ.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: not audio, empty, cut short, or changed while it was read.
        AudioDependencyError: a format that needs the extra `media`.
        ArgumentError: no path and no binary file object.
    """
    with _opened(source) as audio:
        sections: list[tuple[int, list[Block]]] = []
        for rate, block in audio.blocks():
            if not sections or sections[-1][0] != rate or sections[-1][1][-1].shape[1] != block.shape[1]:
                sections.append((rate, []))
            sections[-1][1].append(block)
    rate = sections[0][0]
    arrays = [(each_rate, np.concatenate(blocks).T) for each_rate, blocks in sections]
    if len({len(array) for _, array in arrays}) > 1:
        arrays = [(each_rate, array.mean(axis=0, keepdims=True, dtype=np.float32)) for each_rate, array in arrays]
    resampled = [np.stack([resampler(each, rate)(channel, True) for channel in array]) for each, array in arrays]
    return np.concatenate(resampled, axis=1), rate


def read_blocks(
    source: AudioSource,
    target_rate: int,
    progress: Callable[[float, float], None] | None = None,
    channel: int | None = None,
    name: str | None = None,
) -> Iterator[Waveform]:
    """Read an audio file as `read_audio` and `prepare_waveform` do, a few seconds at a time.

    Args:
        source: as for `read_audio`.
        target_rate: in Hz; resampled with soxr (high quality).
        progress: called with the seconds that are read, and the seconds in total.
        channel: the channel to take, from 0 on; None averages them.
        name: of the source in errors; by default its path, or the name of the file object.

    Yields:
        Blocks (samples,) of mono float32 at `target_rate`.

    Raises:
        AudioFileNotFoundError, AudioError, ArgumentError: as for `read_audio`, no such channel, or NaN or infinite
            values.

    Warns:
        AudioWarning: channels that cancel where they are averaged, values far beyond 1, or foreign bytes in an MP3.
    """
    with _opened(source, name) as audio:
        mixer = Mixer(audio.name, channel)
        done_s, rate = 0.0, 0
        if progress:
            audio.measure()
        resample = resampler(target_rate, target_rate)
        for next_rate, block in audio.blocks():
            if next_rate != rate:
                if rate:
                    yield resample(np.zeros(0, np.float32), True)
                rate, resample = next_rate, resampler(next_rate, target_rate)
            yield resample(mixer.mix(block.T), False)
            done_s += len(block) / rate
            if progress:
                progress(done_s, max(done_s, audio.total_s))
        yield resample(np.zeros(0, np.float32), True)
        mixer.finish()


def read_mono(
    source: AudioSource, channel: int | None = None, name: str | None = None
) -> Iterator[tuple[int, Waveform]]:
    """Read an audio file at its own sample rate, a few seconds at a time.

    Arguments, errors and warnings are those of `read_blocks`.

    Yields:
        Sample rates in Hz and blocks (samples,) of mono float32. Where parts of a file differ (joined MP3s, for
        example), the rate changes.
    """
    with _opened(source, name) as audio:
        mixer = Mixer(audio.name, channel)
        for rate, block in audio.blocks():
            yield rate, mixer.mix(block.T)
        mixer.finish()


def channel_count(source: AudioSource) -> int:
    """Return the number of channels of an audio file; where its parts differ, that of the first one.

    Raises:
        AudioFileNotFoundError, AudioError, ArgumentError: as for `read_audio`.
    """
    with _opened(source) as audio:
        return next(block.shape[1] for _, block in audio.blocks())


@dataclass(frozen=True)
class _Part:
    """A file that libsndfile reads whole, made of pieces of the input. `samples`: how many of them count."""

    pieces: Sequence[Piece]
    samples: int | None = None


@dataclass
class _Audio:
    """An open file: parts that libsndfile reads one after the other, or a reader of PyAV.

    Attributes:
        source: the file.
        parts: what libsndfile reads.
        media: reads instead of libsndfile.
        second: whether PyAV may know a codec that libsndfile doesn't know.
        total_s: length in seconds, as far as it is known; that of one part from its first block on.
    """

    source: Input
    parts: Sequence[_Part]
    media: MediaReader | None = None
    second: bool = False
    total_s: float = 0.0
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))  # of `_apart`

    @property
    def name(self) -> str:
        return self.source.name

    def _apart(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Call a function of libsndfile outside the main thread, the only one in which Ctrl-C is raised.

        libsndfile calls PieceReader back, and cffi drops exceptions there.
        """
        if threading.current_thread() is not threading.main_thread():
            return function(*args)
        return self.thread.submit(function, *args).result()

    def measure(self) -> None:
        """Find out the length in seconds where no block tells."""
        if self.media is not None:
            self.total_s = self.media.duration_s()
        elif len(self.parts) > 1:
            for part in self.parts:
                with self.sound_file(part) as file:
                    self.total_s += _length(file, part) / file.samplerate

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Yield sample rates and blocks (samples, channels).

        Memory grows with the samples that are read, not with the number in the header.
        """
        done = 0
        for rate, block in self.media.blocks() if self.media is not None else self._part_blocks():
            check_sample_rate(rate, self.name)
            done += len(block)
            yield rate, block
        if done == 0:
            raise AudioError(f"{self.name}: holds no samples")

    def _part_blocks(self) -> Iterator[tuple[int, Block]]:
        for part in self.parts:
            try:
                opened = self._open(part)
            except soundfile.SoundFileError:
                if not (self.second and media_installed()):
                    raise
                yield from MediaReader(self.source, "audio").blocks()
                return
            with self._closed(opened) as file:
                done, declared = 0, _length(file, part)
                if len(self.parts) == 1:
                    self.total_s = declared / file.samplerate
                while done < declared and len(block := self._apart(_read, file, declared - done)):
                    done += len(block)
                    yield file.samplerate, block
                if done < declared:
                    raise AudioError(f"{self.name}: cut short, {done} of {declared} samples could be read")

    def sound_file(self, part: _Part) -> AbstractContextManager[soundfile.SoundFile]:
        """Open a part; opening, reading and closing run in the thread."""
        return self._closed(self._open(part))

    def _open(self, part: _Part) -> soundfile.SoundFile:
        return self._apart(soundfile.SoundFile, PieceReader(self.source.file, part.pieces))

    @contextmanager
    def _closed(self, file: soundfile.SoundFile) -> Iterator[soundfile.SoundFile]:
        try:
            check_sample_rate(file.samplerate, self.name)
            yield file
        finally:
            self._apart(file.close)


def _length(file: soundfile.SoundFile, part: _Part) -> int:
    return file.frames if part.samples is None else part.samples


def _read(file: soundfile.SoundFile, frames: int) -> Block:
    return file.read(min(_BLOCK_FRAMES, frames), dtype="float32", always_2d=True)


@contextmanager
def _opened(source: AudioSource, name: str | None = None) -> Iterator[_Audio]:
    with opened_input(source) as found:
        found = found if name is None else Input(found.file, name)
        audio = None
        try:
            audio = _inspected(found)
            yield audio
        except soundfile.SoundFileError as error:
            raise AudioError(f"{found.name}: can't be read as audio ({_reason(error)}){_hint(found)}") from None
        finally:
            if audio is not None:
                audio.thread.shutdown()


def _inspected(source: Input) -> _Audio:
    """Find out what a file is, and how it is read whole."""
    refuse_no_audio(source)
    head = source.read(0, 600)
    if head[:4] == b"OggS":
        return _ogg(source)
    start = _after_id3(source)
    if 0 < start < source.size:
        return _inspected(source.view(start, source.size))
    if head[:4] == b"fLaC":
        return _Audio(source, [_Part(pieces) for pieces in flac_frames.parts(source)])
    if head[:4] in MENDERS and head[:12][8:] != b"AVI ":
        return _uncompressed(source, head)
    kind = media_format(head)
    mpeg_start = _mpeg_start(source, kind)
    if mpeg_start is not None:
        return _mpeg(source, mpeg_start)
    if kind is not None:
        media = MediaReader(source, kind)
        check_sizes(source, kind)
        return _Audio(source, [], media)
    return _Audio(source, [_Part([(0, source.size)])])


def _uncompressed(source: Input, head: bytes) -> _Audio:
    if head[:4] == b"RIFF" and (frames := wav_mpeg(source)) is not None:
        start = mp3_frames.first_frame(Scanner(frames), search=True)
        if start is not None:
            return _mpeg(frames, start)
    parts = MENDERS[head[:4]](source) or [[(0, source.size)]]
    return _Audio(source, [_Part(pieces) for pieces in parts], second=True)


def _ogg(source: Input) -> _Audio:
    streams = ogg_pages.walk(source)
    parts: list[_Part] = []
    if foreign := ogg_pages.foreign_bytes(source, streams):
        warn(f"{source.name}: {foreign} bytes after its last Ogg page are no audio; they are left out")
    for stream in streams:
        if stream.codec == "Speex":
            return _Audio(source, [], MediaReader(source, "Speex"))
        if stream.codec == "FLAC":  # the packets are a FLAC file, but for 9 bytes
            ranges = ogg_pages.contents(stream)
            ranges[0] = (ranges[0][0] + 9, ranges[0][1] - 9)
            native = Input(cast(BinaryIO, PieceReader(source.file, joined(ranges))), source.name)
            parts += [_Part(_resolved(pieces, ranges)) for pieces in flac_frames.parts(native)]
        else:
            parts.append(_Part(joined([(page.start, page.stop - page.start) for page in stream.pages])))
    return _Audio(source, parts)


def _resolved(pieces: list[Piece], ranges: list[tuple[int, int]]) -> list[Piece]:
    """Return pieces of a file that is made of `ranges` of another one as pieces of that one."""
    found: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            found.append(piece)
            continue
        start, length = piece
        for begin, count in ranges:
            if start < count and length > 0:
                taken = min(count - start, length)
                found.append((begin + start, taken))
                length -= taken
            start = max(0, start - count)
    return found


def _mpeg_start(source: Input, kind: str | None) -> int | None:
    """Return where the first frame of an MP3 or MP2 file begins; None for another file."""
    if kind is not None and kind != "AAC":
        return None
    return mp3_frames.first_frame(Scanner(source), search=kind is None and source.name.lower().endswith(_MPEG_SUFFIXES))


def _mpeg(source: Input, start: int) -> _Audio:
    found = mp3_frames.walk(source, start)
    scanner = Scanner(source)
    if found.foreign_bytes:
        warn(f"{source.name}: {found.foreign_bytes} bytes between its MPEG frames are no audio; they are left out")
    return _Audio(source, [_Part(*mp3_frames.pieces(part, scanner)) for part in found.parts])


def _after_id3(source: Input) -> int:
    """Return where the content begins after an ID3v2 tag."""
    head = source.read(0, 10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 0x10 else 0)


def _hint(source: Input) -> str:
    if source.name.lower().endswith((".raw", ".pcm")):
        return "; samples without a header don't say what they are: convert the file to WAV"
    known = source.name.lower().endswith(tuple(MEDIA_SUFFIXES))
    in_known_format = source.read(0, 4) in MENDERS
    if (known or in_known_format) and not media_installed():
        return '; more formats are read with PyAV: run `pip install "dmcodec[media]"`'
    return ""


def _reason(error: soundfile.SoundFileError) -> str:
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return "its FLAC frames are cut short or damaged" if "flac decoder lost sync" in reason else reason
