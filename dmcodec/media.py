"""Formats that libsndfile doesn't read, by PyAV (the extra `media`): M4A, AAC, WebM, AMR, sound tracks of videos."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import AudioDependencyError, AudioError, first_line
from .extras import is_installed
from .streams import Input, Scanner

# Files that count as audio in a folder where the extra `media` is installed.
MEDIA_SUFFIXES = frozenset({
    ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".adts", ".webm", ".weba", ".mkv", ".mka", ".wma",
    ".wmv", ".asf", ".amr", ".awb", ".ac3", ".eac3", ".wv", ".tta", ".ape", ".spx", ".ogv", ".avi", ".flv", ".ts",
    ".mpg", ".mpeg",
})  # fmt: skip

# First bytes -> name of the format.
_MAGIC = (
    (re.compile(rb".{4}(ftyp|moov|mdat|wide|free|skip)", re.DOTALL), "MP4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "Matroska or WebM"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "WMA"),
    (re.compile(rb"#!AMR"), "AMR"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9][\x00-\xbf]", re.DOTALL), "AAC"),
    (re.compile(rb"\x0b\x77"), "AC-3"),
    (re.compile(rb"wvpk"), "WavPack"),
    (re.compile(rb"TTA[12]"), "TTA"),
    (re.compile(rb"MAC "), "Monkey's Audio"),
    (re.compile(rb"FLV\x01"), "Flash video"),
    (re.compile(rb"RIFF.{4}AVI ", re.DOTALL), "AVI"),
    (re.compile(rb"\x00\x00\x01\xba"), "MPEG video"),
    (re.compile(rb"\x47.{187}\x47.{187}\x47", re.DOTALL), "MPEG transport stream"),
)
_EXACT = ("mov", "matroska", "wv", "tta", "asf")  # containers that give a length, and not an estimate by the bitrate
_AC3_KBIT_S = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def media_format(head: bytes) -> str | None:
    """Return the name of a format that PyAV reads, by the first bytes of a file; None for another."""
    return next((name for magic, name in _MAGIC if magic.match(head)), None)


def media_installed() -> bool:
    """Return whether the extra `media` is installed."""
    return is_installed("av")


def check_sizes(source: Input, kind: str) -> None:
    """Raise AudioError for a file that is shorter than the sizes in it say."""
    if kind == "MP4":
        _check_boxes(source)
    elif kind == "Matroska or WebM":
        _check_segment(source)
    elif kind == "AC-3":
        _check_frames(source, ac3_frame_bytes)
    elif kind == "WMA":
        _check_asf(source)
    elif kind == "AAC":
        _check_frames(source, aac_frame_bytes)
    elif kind == "AVI":
        _refuse_short(source, 8 + int.from_bytes(source.read(4, 4), "little"))


class MediaReader:
    """Reads the first or default sound track of a file.

    Args:
        source: the file.
        kind: name of its format in errors.

    Raises:
        AudioDependencyError: PyAV isn't installed.
    """

    def __init__(self, source: Input, kind: str) -> None:
        if not media_installed():
            raise AudioDependencyError(
                f'{source.name}: {kind} needs PyAV, which is not installed; run `pip install "dmcodec[media]"`'
            )
        self._source, self._kind = source, kind

    def duration_s(self) -> float:
        """Return the length in seconds; 0 if the file doesn't say."""
        import av

        try:
            self._source.file.seek(0)
            with av.open(self._source.file, mode="r") as container:
                return (container.duration or 0) / 1_000_000
        except (av.FFmpegError, ValueError):
            return 0.0

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield sample rates in Hz and blocks (samples, channels) float32.

        Raises:
            AudioError: no sound track, damaged, or cut short.
        """
        import av

        self._source.file.seek(0)
        try:
            with av.open(self._source.file, mode="r", metadata_errors="ignore") as container:
                stream = next(iter(container.streams.audio), None)
                if stream is None:
                    raise AudioError(f"{self._source.name}: holds no sound track")
                yield from self._track(container, stream)
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, AudioError):
                raise
            reason = first_line(error).split("] ")[-1].split(":")[0]
            raise AudioError(f"{self._source.name}: can't be read as {self._kind} ({reason})") from None

    def _track(self, container: Any, stream: Any) -> Iterator[tuple[int, NDArray[np.float32]]]:
        exact = any(name in _EXACT for name in container.format.name.split(","))
        length = stream.duration * stream.time_base if exact and stream.duration else None
        packets, done_s = 0, Fraction(0)
        for packet in container.demux(stream):
            packets += packet.size > 0
            if packet.is_corrupt:
                raise AudioError(f"{self._source.name}: cut short or damaged, packet {packets} is incomplete")
            for frame in packet.decode():
                samples, rate = samples_of(frame), frame.sample_rate
                if length is not None:  # encoders fill the last frame; the container says where the sound ends
                    samples = samples[: max(0, round((length - done_s) * rate))]
                done_s += Fraction(len(samples), rate)
                if len(samples):
                    yield rate, samples
        if "mov" in container.format.name and packets < stream.frames:
            raise AudioError(f"{self._source.name}: cut short, {packets} of {stream.frames} packets are there")
        total = container.duration and Fraction(container.duration, 1_000_000)
        if exact and total and length is None and float(total - done_s) > max(0.5, 0.02 * float(total)):
            raise AudioError(
                f"{self._source.name}: cut short, {float(done_s):.2f} of {float(total):.2f} seconds of sound are there"
            )


def samples_of(frame: Any) -> NDArray[np.float32]:
    """Return the samples (samples, channels) of a frame of PyAV as float32 in [-1, 1]."""
    array = frame.to_ndarray()
    channels = len(frame.layout.channels)
    planar = array.T if frame.format.is_planar else array.reshape(-1, channels)
    if planar.dtype.kind == "f":
        return np.ascontiguousarray(planar, np.float32)
    if planar.dtype == np.uint8:
        return (planar.astype(np.float32) - 128) / 128
    return planar.astype(np.float32) / np.float32(1 << 8 * planar.dtype.itemsize - 1)


def _refuse_short(source: Input, declared: int) -> None:
    if declared > source.size:
        raise AudioError(
            f"{source.name}: cut short, {declared - source.size} of {declared} bytes are missing; copy it again"
        )


def _check_boxes(source: Input) -> None:
    """Walk the boxes of an MP4 file (ISO/IEC 14496-12)."""
    offset, names = 0, set()
    while len(head := source.read(offset, 16)) >= 8:
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        names.add(name)
        if length == 0:  # to the end of the file
            return
        if length < 8:
            break
        _refuse_short(source, offset + length)
        offset += length
    if b"moov" not in names:
        raise AudioError(f"{source.name}: cut short, the MP4 index (moov) is missing; record or copy it again")


def _check_segment(source: Input) -> None:
    """Read the length of a Matroska segment (RFC 8794): the element after the EBML header."""
    offset = 4
    size, width, _ = _ebml_size(source.read(offset, 8))
    offset += width + size
    if source.read(offset, 4) == b"\x18\x53\x80\x67":
        size, width, is_unknown = _ebml_size(source.read(offset + 4, 8))
        if not is_unknown:
            _refuse_short(source, offset + 4 + width + size)


def _check_asf(source: Input) -> None:
    """Read the size of a WMA file from its file properties object (ASF specification, 3.2)."""
    head = source.read(0, 1 << 16)
    at = head.find(_ASF_PROPERTIES)
    if at >= 0 and not head[at + 88] & 1:  # not a live broadcast
        _refuse_short(source, int.from_bytes(head[at + 40 : at + 48], "little"))


def _ebml_size(head: bytes) -> tuple[int, int, bool]:
    """Return a size, the bytes that it takes, and whether it means that the size is not known."""
    width = 9 - head[0].bit_length() if head and head[0] else 1
    value = int.from_bytes(head[:width], "big") & (1 << 7 * width) - 1
    return value, width, value == (1 << 7 * width) - 1


def _check_frames(source: Input, frame_bytes: Callable[[bytes], int]) -> None:
    """Walk the frames of a file without a container."""
    scanner, offset = Scanner(source), 0
    while offset < scanner.size:
        head = scanner.peek(offset, 7)
        length = frame_bytes(head) if len(head) == 7 else 0
        if not length:
            if len(head) < 7 and head[:1] == source.read(0, 1):
                raise AudioError(f"{source.name}: cut short within a frame")
            return  # a tag at the end
        _refuse_short(source, offset + length)
        offset += length


def aac_frame_bytes(head: bytes) -> int:
    """Return the length of an ADTS frame by its first 7 bytes (ISO/IEC 13818-7); 0 if they begin none."""
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and length >= 7 else 0


def ac3_frame_bytes(head: bytes) -> int:
    """Return the length of an AC-3 or E-AC-3 frame by its first 7 bytes (ETSI TS 102 366); 0 if they begin none."""
    if head[:2] != b"\x0b\x77":
        return 0
    if head[5] >> 3 > 10:  # E-AC-3
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    rate, code = head[4] >> 6, head[4] & 0x3F
    if rate == 3 or code >= 2 * len(_AC3_KBIT_S):
        return 0
    kbit_s = _AC3_KBIT_S[code // 2]
    return 2 * (96000 * kbit_s // 44100 + code % 2) if rate == 1 else kbit_s * (4, 0, 6)[rate]
