"""Ogg: the pages are walked, since libsndfile reads the first of several streams that are joined (RFC 3533)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import AudioError
from .streams import Input, Scanner

_BEGINS, _ENDS = 0x02, 0x04
_HEAD = struct.Struct("<4sBBqIII B")  # OggS, version, flags, position, serial, number, checksum, segments
_HEAD_BYTES = 27
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# The first bytes of a stream's first packet -> its codec.
_AUDIO = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}


@dataclass(frozen=True)
class Page:
    """A page: where it begins, where its content begins, and where it ends."""

    start: int
    content: int
    stop: int
    flags: int
    serial: int
    number: int


@dataclass
class Stream:
    """One stream of audio from its first page to its last. `codec` is Vorbis, Opus, FLAC, Speex, or "" for no audio."""

    codec: str
    pages: list[Page] = field(default_factory=list)


def walk(source: Input) -> list[Stream]:
    """Return the streams of audio, one for each link of a chain, in order.

    Where streams run beside each other (video with sound), the first one of audio counts.

    Raises:
        AudioError: pages are missing or damaged, a stream doesn't end, or there is no audio.
    """
    links: list[dict[int, Stream]] = []
    first_pages = False
    scanner = Scanner(source)
    for page in _pages(scanner):
        if page.flags & _BEGINS:
            if not first_pages:
                links.append({})
            links[-1][page.serial] = Stream(_codec(scanner.peek(page.content, 8)))
        first_pages = bool(page.flags & _BEGINS)
        if not links or page.serial not in links[-1]:
            raise AudioError(f"{source.name}: its first Ogg pages are missing; record or copy it again")
        pages = links[-1][page.serial].pages
        if pages and page.number != pages[-1].number + 1:
            raise AudioError(
                f"{source.name}: damaged, Ogg pages are missing between number {pages[-1].number} and {page.number}"
            )
        pages.append(page)
    found = [next((stream for stream in link.values() if stream.codec), None) for link in links]
    streams = [stream for stream in found if stream is not None]
    if not streams:
        raise AudioError(f"{source.name}: can't be read as audio (its Ogg streams hold none)")
    for stream in streams:
        if not stream.pages[-1].flags & _ENDS:
            raise AudioError(
                f"{source.name}: cut short, its last Ogg page is not the end of the stream; if you want what is there, "
                "write it anew, for example with `ffmpeg -i IN -c copy OUT.ogg`"
            )
    return streams


def contents(stream: Stream) -> list[tuple[int, int]]:
    """Return (start, length) of the contents of its pages."""
    return [(page.content, page.stop - page.content) for page in stream.pages]


def foreign_bytes(source: Input, streams: list[Stream]) -> int:
    """Return how many bytes follow the last page of audio that are no page, no ID3v1 tag and no zeros."""
    end = max(stream.pages[-1].stop for stream in streams)
    rest = source.read(end, source.size - end).rstrip(b"\0")
    is_tag = rest[:3] == b"TAG" and len(rest) <= 128
    return 0 if is_tag or rest[:4] == b"OggS" else len(rest)


def _pages(scanner: Scanner) -> Iterator[Page]:
    offset, name = 0, scanner.source.name
    while offset < scanner.size:
        head = scanner.peek(offset, _HEAD_BYTES + 255)
        if head[:4] != b"OggS":
            following = scanner.find(b"OggS", offset)
            if following < 0:
                if b"OggS".startswith(head[:4]):
                    raise AudioError(f"{name}: cut short within an Ogg page")
                return  # a tag, for example; whether the stream has ended shows its last page
            offset = following
            continue
        if len(head) < _HEAD_BYTES or len(head) < _HEAD_BYTES + head[26]:
            raise AudioError(f"{name}: cut short within an Ogg page")
        _, _, flags, _, serial, number, checksum, segments = _HEAD.unpack(head[:_HEAD_BYTES])
        begin = offset + _HEAD_BYTES + segments
        stop = begin + sum(head[_HEAD_BYTES : _HEAD_BYTES + segments])
        if stop > scanner.size:
            raise AudioError(f"{name}: cut short within an Ogg page, {stop - scanner.size} bytes are missing")
        page = scanner.peek(offset, stop - offset)
        if checksum != page_checksum(page):
            problem = "damaged" if offset else "can't be read as audio"
            raise AudioError(f"{name}: {problem} (the checksum of Ogg page {number} doesn't match)")
        yield Page(offset, begin, stop, flags, serial, number)
        offset = stop


def page_checksum(page: bytes) -> int:
    """Return the checksum of a page: CRC-32 with its bits in the other order, and other first and last values."""
    plain = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(plain.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")


def _codec(packet: bytes) -> str:
    return next((name for magic, name in _AUDIO.items() if packet.startswith(magic)), "")
