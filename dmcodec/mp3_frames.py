"""MPEG audio (MP3, MP2): the frames are walked, since most files don't say how long they are.

Sources of the algorithms: ISO/IEC 11172-3 and 13818-3 for the frames, the Xing and VBRI headers as LAME and
Fraunhofer's encoder write them, ID3v2, APEv2 and Lyrics3 for the tags.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from .errors import AudioError
from .streams import Input, Piece, Scanner, joined

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by version bits
_KBIT_S = {  # by MPEG-1 or not, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SEARCHED_BYTES = 1 << 16  # for the first frame
_FIRST_FRAME_BYTES = 4 + 2 + 36 + 120  # head, CRC, side information, Xing header


@dataclass(frozen=True)
class Frame:
    """What the four bytes at the head of a frame say."""

    version: int
    layer: int
    sample_rate: int
    channels: int
    samples: int
    length: int

    @property
    def format(self) -> tuple[int, int, int, int]:
        """What is the same in all frames of one stream."""
        return self.version, self.layer, self.sample_rate, self.channels

    @property
    def side_bytes(self) -> int:
        """Bytes of side information of a frame of layer III."""
        if self.version == 3:
            return 17 if self.channels == 1 else 32
        return 9 if self.channels == 1 else 17


@lru_cache(maxsize=4096)
def parse_frame(head: bytes) -> Frame | None:
    """Read the head of a frame; None if these 4 bytes are none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bitrate in (0, 15) or rate == 3 or head[3] & 3 == 2:
        return None
    sample_rate = _RATES[version][rate]
    bits_s = 1000 * _KBIT_S[version == 3, layer][bitrate - 1]
    samples = 384 if layer == 1 else 1152 if layer == 2 or version == 3 else 576
    slot = 4 if layer == 1 else 1
    length = (samples // 8 // slot * bits_s // sample_rate + padding) * slot
    return Frame(version, layer, sample_rate, 1 if head[3] >> 6 == 3 else 2, samples, length)


@dataclass
class MpegPart:
    """Frames of one stream, one after the other in the file but for what was left out between them.

    Attributes:
        first: its first frame of audio.
        frames: (start, length) of each frame of audio.
        header: (start, length) of the frame with the Xing header, if there is one.
        declared_frames: by the header; None if it doesn't say.
        declared_bytes: by the header, of all frames with the header itself; None if it doesn't say.
    """

    first: Frame
    frames: list[tuple[int, int]] = field(default_factory=list)
    header: tuple[int, int] | None = None
    declared_frames: int | None = None
    declared_bytes: int | None = None


@dataclass(frozen=True)
class MpegAudio:
    """The parts of a file, and the bytes between its frames that are neither audio nor a known tag."""

    parts: list[MpegPart]
    foreign_bytes: int


def begins_with_frame(scanner: Scanner, offset: int) -> bool:
    """Return whether a frame begins here that another frame of its kind, a tag or the end follows."""
    frame = parse_frame(scanner.peek(offset, 4))
    if frame is None:
        return False
    end = offset + frame.length
    following = parse_frame(scanner.peek(end, 4))
    if following is not None:
        return following.format[:3] == frame.format[:3]
    return end >= scanner.size or _tag_bytes(scanner, end) > 0


def first_frame(scanner: Scanner, search: bool) -> int | None:
    """Return where the first frame begins, after tags (with `search`, after anything); None if there is none."""
    offset = 0
    while length := _tag_bytes(scanner, offset):
        offset += length
    last = min(scanner.size, offset + _SEARCHED_BYTES) if search else offset + 1
    return next((each for each in range(offset, last) if begins_with_frame(scanner, each)), None)


def walk(source: Input, start: int) -> MpegAudio:
    """Walk all frames from `start` on.

    Raises:
        AudioError: the file ends within a frame, or a part holds fewer frames than its header says.
    """
    scanner, foreign = Scanner(source), 0
    parts: list[MpegPart] = []
    offset = start
    while offset < scanner.size:
        frame = parse_frame(scanner.peek(offset, 4))
        if frame is not None and offset + frame.length > scanner.size:
            raise AudioError(
                f"{source.name}: cut short within a frame, {offset + frame.length - scanner.size} of its "
                f"{frame.length} bytes are missing"
            )
        if frame is None:
            skipped, known = _skip(scanner, offset, parts[-1].first if parts else None)
            foreign += 0 if known else skipped
            offset += skipped
            continue
        header = _header(scanner, offset, frame)
        if not parts or header is not None or parts[-1].first.format != frame.format:
            parts.append(header or MpegPart(frame))
        if header is None:
            parts[-1].frames.append((offset, frame.length))
        offset += frame.length
    return MpegAudio([each for part in parts for each in _checked(source.name, part)], foreign)


def pieces(part: MpegPart, scanner: Scanner) -> tuple[list[Piece], int | None]:
    """Return a file of this part that libsndfile reads to its end, and its samples where that file holds more."""
    frames, count = joined(part.frames), len(part.frames)
    audio_bytes = sum(length for _, length in part.frames)
    if part.header is None:
        if part.first.layer != 3:  # libsndfile takes the length from that of the first frame: let it be long enough
            missing = max(0, (count + 2) * part.frames[0][1] - audio_bytes)
            last = part.frames[-1]
            return [*frames, *[last] * (missing // last[1] + 1)], count * part.first.samples
        return [_xing_frame(scanner.peek(part.frames[0][0], 4), count, audio_bytes), *frames], None
    head = scanner.peek(*part.header)
    if part.declared_frames == count:
        return [head, *frames], None
    tag = part.first.side_bytes + (4 if head[1] & 1 else 6)
    return [head[: tag + 8] + struct.pack(">I", count) + head[tag + 12 :], *frames], None


def _checked(name: str, part: MpegPart) -> Iterator[MpegPart]:
    """Compare a part with its header; yield it, or two parts if frames follow that the header doesn't count."""
    if not part.frames:
        if part.declared_frames:
            raise AudioError(f"{name}: cut short, 0 of {part.declared_frames} frames are there")
        return
    found, declared = len(part.frames), part.declared_frames
    found_bytes = sum(length for _, length in part.frames) + (part.header[1] if part.header else 0)
    # Some encoders count the header's own frame. Their number of bytes tells.
    whole = part.declared_bytes is not None and part.declared_bytes <= found_bytes
    if declared is not None and found < declared and not (whole and found == declared - 1):
        raise AudioError(f"{name}: cut short, {found} of {declared} frames are there")
    if declared and found > declared + 1:
        yield MpegPart(part.first, part.frames[:declared], part.header, declared)
        yield MpegPart(part.first, part.frames[declared:])
    else:
        yield part


def _header(scanner: Scanner, offset: int, frame: Frame) -> MpegPart | None:
    """Return a new part if this frame holds no audio but a Xing, Info or VBRI header."""
    if frame.layer != 3:
        return None
    head = scanner.peek(offset, min(frame.length, _FIRST_FRAME_BYTES))
    tag = frame.side_bytes + (4 if head[1] & 1 else 6)
    if head[tag : tag + 4] in (b"Xing", b"Info") and not any(head[tag - frame.side_bytes : tag]):
        flags, *values = struct.unpack(">3I", head[tag + 4 : tag + 16].ljust(12, b"\0"))
        count = values.pop(0) if flags & 1 else None
        size = values.pop(0) if flags & 2 else None
        if count is None:  # nothing that libsndfile could use
            return MpegPart(frame)
        return MpegPart(frame, [], (offset, frame.length), count, size)
    if head[36:40] == b"VBRI" and not any(head[6:36]):
        size, count = struct.unpack(">2I", head[46:54])
        return MpegPart(frame, [], None, count, size)
    return None


def _xing_frame(head: bytes, count: int, audio_bytes: int) -> bytes:
    """Return a frame with a Xing header, for a stream whose frames begin as `head`."""
    for bitrate in range(1, 15):
        head = bytes([head[0], head[1] | 1, bitrate << 4 | head[2] & 0x0C, head[3]])
        frame = parse_frame(head)
        if frame is not None and frame.length >= 4 + frame.side_bytes + 16:
            body = head + bytes(frame.side_bytes) + b"Xing" + struct.pack(">3I", 3, count, frame.length + audio_bytes)
            return body + bytes(frame.length - len(body))
    raise AssertionError("a frame of the highest bitrate holds a Xing header")


def _skip(scanner: Scanner, offset: int, first: Frame | None) -> tuple[int, bool]:
    """Return how many bytes are no frame, and whether they are a known tag or zeros."""
    if length := _tag_bytes(scanner, offset):
        return length, True
    block = scanner.peek(offset, 1 << 16)
    if zeros := len(block) - len(block.lstrip(b"\0")):
        return zeros, True
    for match in re.finditer(rb"\xff[\xe0-\xff]|ID3|TAG|APETAGEX", block[1:]):
        at = offset + 1 + match.start()
        frame = parse_frame(scanner.peek(at, 4))
        if _tag_bytes(scanner, at):
            return at - offset, False
        alike = frame is not None and (first is None or frame.format[:3] == first.format[:3])
        if alike and begins_with_frame(scanner, at):
            return at - offset, False
    return len(block), False


def _tag_bytes(scanner: Scanner, offset: int) -> int:
    """Return the length of the tag that begins here; 0 if there is none."""
    head = scanner.peek(offset, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and not any(byte & 0x80 for byte in head[6:10]):
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:4] == b"TAG+":
        return 227
    if head[:3] == b"TAG" and _is_id3v1(scanner, offset):
        return 128
    if head[:8] == b"APETAGEX" and len(head) == 32:
        size, flags = struct.unpack("<I4xI", head[12:24])
        return 32 + size if flags & 1 << 29 else 32
    if head[:11] == b"LYRICSBEGIN":
        end = re.search(rb"LYRICS200|LYRICSEND", scanner.peek(offset, 1 << 16))
        return end.end() if end else 0
    return 0


def _is_id3v1(scanner: Scanner, offset: int) -> bool:
    """Return whether what follows an ID3v1 tag follows here: the end, another tag, or a frame."""
    following = scanner.peek(offset + 128, 4)
    return not following or following[:3] in (b"ID3", b"TAG", b"APE") or parse_frame(following) is not None
