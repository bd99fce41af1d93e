"""Makes sound files as programs leave them: MPEG frames without headers, Ogg pages, sizes that are wrong."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from dmcodec.mp3_frames import parse_frame
from dmcodec.ogg_pages import page_checksum

RATE = 16000


def noise(num_samples: int, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """(samples, channels), or (samples,) for one channel."""
    shape = (num_samples, channels) if channels > 1 else num_samples
    return (np.random.default_rng(seed).standard_normal(shape) * 0.1).astype(np.float32)


def encoded(
    samples: NDArray[np.float32], kind: str, rate: int = RATE, subtype: str | None = None, **more: Any
) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype, format=kind, **more)
    return buffer.getvalue()


def mp3_frames(content: bytes) -> list[bytes]:
    """The frames of an MP3; the first one is the Info header of libsndfile."""
    frames, offset = [], 0
    while offset < len(content):
        frame = parse_frame(content[offset : offset + 4])
        assert frame is not None
        frames.append(content[offset : offset + frame.length])
        offset += frame.length
    return frames


def without_header(content: bytes) -> bytes:
    """An MP3 without its Info header."""
    return b"".join(mp3_frames(content)[1:])


def ogg_pages(content: bytes) -> list[bytes]:
    pages, offset = [], 0
    while offset < len(content):
        segments = content[offset + 26]
        stop = offset + 27 + segments + sum(content[offset + 27 : offset + 27 + segments])
        pages.append(content[offset:stop])
        offset = stop
    return pages


def changed_page(page: bytes, flags: int | None = None, number: int | None = None) -> bytes:
    """A page with other fields and a right checksum."""
    fields = bytearray(page)
    if flags is not None:
        fields[5] = flags
    if number is not None:
        fields[18:22] = struct.pack("<I", number)
    fields[22:26] = struct.pack("<I", page_checksum(bytes(fields)))
    return bytes(fields)


def ogg_flac(flac: bytes, samples_per_page: int = 4096) -> bytes:
    """A FLAC file as FLAC in Ogg: one packet for the header, one for the rest, over as many pages as it takes."""
    assert flac[:4] == b"fLaC"
    blocks, offset, last = [], 4, False
    while not last:
        length = int.from_bytes(flac[offset + 1 : offset + 4], "big")
        last = bool(flac[offset] & 0x80)
        blocks.append(flac[offset : offset + 4 + length])
        offset += 4 + length
    first = b"\x7fFLAC\x01\x00" + struct.pack(">H", len(blocks) - 1) + b"fLaC" + blocks[0]
    pages: list[bytes] = []
    packets = [first, *blocks[1:], flac[offset:]]
    for packet in packets:
        for start in range(0, len(packet) or 1, 255 * 200):
            part, ends = packet[start : start + 255 * 200], start + 255 * 200 >= len(packet)
            lacing = [255] * (len(part) // 255) + ([len(part) % 255] if ends else [])
            flags = (2 if not pages else 0) | (1 if start else 0) | (4 if ends and packet is packets[-1] else 0)
            head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, 0, 7, len(pages), 0, len(lacing))
            pages.append(changed_page(head + bytes(lacing) + part))
    return b"".join(pages)
