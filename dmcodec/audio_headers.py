"""Check that an audio file is as long as its header says; libsndfile reads a truncated file as a shorter clip."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

from .errors import AudioError

# Programs that write into a pipe don't know the length: ffmpeg writes 2**32 - 1, sox a little less than 2**31.
_UNKNOWN_LENGTH = 0x7FFF_0000
_LONGEST_OGG_PAGE = 27 + 255 + 255 * 255
_END_OF_STREAM = 0x04


def check_complete(path: Path) -> None:
    """Raise AudioError for a file that is shorter than its header says."""
    with path.open("rb") as file:
        declared = _declared_bytes(file)
        if not _ogg_ends(file, path.stat().st_size):
            raise AudioError(f"{path}: cut short, its last Ogg page is not the end of the stream")
    if declared is not None and declared > path.stat().st_size:
        missing = declared - path.stat().st_size
        raise AudioError(f"{path}: cut short, {missing} of {declared} bytes are missing")


def _ogg_ends(file: BinaryIO, size: int) -> bool:
    """Return whether the last page of an Ogg file is complete and ends its stream; true for other formats."""
    file.seek(0)
    if file.read(4) != b"OggS":
        return True
    file.seek(max(0, size - _LONGEST_OGG_PAGE))
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27:
        return False
    segments = tail[page + 27 : page + 27 + tail[page + 26]]
    whole = len(segments) == tail[page + 26] and page + 27 + len(segments) + sum(segments) <= len(tail)
    return whole and bool(tail[page + 5] & _END_OF_STREAM)


def _declared_bytes(file: BinaryIO) -> int | None:
    """Return where the samples (or the file) end, by the header of an uncompressed format; None if it doesn't say."""
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
    """Return where the chunk named data ends, by its head; None if it doesn't say. Chunks begin at `start`."""
    file.seek(start)
    size = struct.calcsize(chunk_head)
    while len(head := file.read(size)) == size:
        name, length = struct.unpack(chunk_head, head)
        if name == b"data":
            return file.tell() + int(length) if 0 <= length < _UNKNOWN_LENGTH else None
        file.seek(max(0, length) + length % padding, io.SEEK_CUR)
    return None
