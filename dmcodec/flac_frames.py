"""FLAC: files that are joined are cut apart, and the last frame says how long a file is (RFC 9639)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from .errors import AudioError
from .streams import Input, Piece, Scanner

_MARKERS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # with the head of the first block of metadata
_LENGTH_AT = 4 + 4 + 13  # of the byte that holds the first 4 of 36 bits
_TAIL_BYTES = 1 << 18
_BLOCK_SIZES = {
    1: 192,
    **{code: 576 << (code - 2) for code in range(2, 6)},
    **{code: 256 << (code - 8) for code in range(8, 16)},
}


def parts(source: Input) -> list[list[Piece]]:
    """Return the FLAC files that are joined in one file, each with its true length in its header.

    Raises:
        AudioError: the length isn't known and the last frame is incomplete, or the last frame is not where the header
            says.
    """
    scanner, starts = Scanner(source), [0]
    while True:
        following = [scanner.find(marker, starts[-1] + len(marker)) for marker in _MARKERS]
        if not any(each >= 0 for each in following):
            break
        starts.append(min(each for each in following if each >= 0))
    stops = [*starts[1:], scanner.size]
    return [_part(source, *ends) for ends in zip(starts, stops, strict=True)]


def _part(source: Input, start: int, stop: int) -> list[Piece]:
    head = source.read(start, _LENGTH_AT + 5)
    if len(head) < _LENGTH_AT + 5 or head[:4] != b"fLaC":
        raise AudioError(f"{source.name}: can't be read as audio (cut short within its FLAC header)")
    field = int.from_bytes(head[-5:], "big")
    declared, fixed_size = field & (1 << 36) - 1, int.from_bytes(head[8:10], "big")
    stop -= _tag_bytes(source, stop)
    tail = source.read(max(start, stop - _TAIL_BYTES), stop - max(start, stop - _TAIL_BYTES))
    found = last_sample(tail, fixed_size)
    if found is None and not declared:
        raise AudioError(f"{source.name}: cut short, its last FLAC frame is incomplete")
    if found is not None and declared and found > declared:
        raise AudioError(
            f"{source.name}: its header gives {declared} samples, but there are {found}; repair it, for example with "
            "`ffmpeg -i IN OUT.flac`"
        )
    if declared and head[8:10] == head[10:12]:  # else some writers don't give the size of all frames but the last
        _refuse_cut(source.name, tail, fixed_size, found, declared)
    if declared:
        return [(start, stop - start)]
    length = (field | found).to_bytes(5, "big") if found else head[-5:]
    return [head[:_LENGTH_AT] + length, (start + len(head), stop - start - len(head))]


def _refuse_cut(name: str, tail: bytes, fixed_size: int, found: int | None, declared: int) -> None:
    """Raise AudioError where the last frame, whole or begun, ends before the samples that the header gives."""
    begin, end = next(((begin, end) for _, begin, end in _frames_back(tail, fixed_size)), (declared, declared))
    there, end = (begin, end) if found is None else (found, found)
    if end < declared:  # otherwise foreign bytes may follow the last frame
        raise AudioError(f"{name}: cut short, {there} of {declared} samples are there; copy it again")


def last_sample(tail: bytes, fixed_size: int) -> int | None:
    """Return the number of samples up to the end of a file, by the frame that ends it; None if none ends there.

    Args:
        tail: the last bytes of the file.
        fixed_size: samples of a frame where all have the same size, from the header.
    """
    for at, _, end in _frames_back(tail, fixed_size):
        if _crc16(tail[at:]) == 0:  # the checksum of a frame with its checksum
            return end
    return None


def _frames_back(tail: bytes, fixed_size: int) -> Iterator[tuple[int, int, int]]:
    """Yield where each frame begins, from the last on, and its first sample and the one after its last."""
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        if tail[at + 1 : at + 2] in (b"\xf8", b"\xf9"):
            samples = _frame_head(tail[at : at + 16], fixed_size)
            if samples is not None:
                yield at, *samples


def _frame_head(head: bytes, fixed_size: int) -> tuple[int, int] | None:
    """Return where the samples of the frame with this head begin and end; None if it is no head."""
    if len(head) < 6 or head[3] & 1:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # the number is coded as UTF-8 codes characters
    length = 1 if ones == 0 else ones
    if ones == 1 or ones > 7 or len(head) < 4 + length + 5:
        return None
    number = head[4] & (0x7F if ones == 0 else 0x7F >> ones)
    for byte in head[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    at = 4 + length
    size_code, rate_code = head[2] >> 4, head[2] & 15
    extra = {6: 1, 7: 2}.get(size_code, 0)
    size = int.from_bytes(head[at : at + extra], "big") + 1 if extra else _BLOCK_SIZES.get(size_code, 0)
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if not size or at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    begin = number if head[1] & 1 else number * fixed_size
    return begin, begin + size


def _tag_bytes(source: Input, stop: int) -> int:
    """Return the bytes of an ID3 tag at the end."""
    return 128 if source.read(stop - 128, 3) == b"TAG" else 0


@cache
def _crc_table(polynomial: int, bits: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return tuple(table)


def _crc8(data: bytes) -> int:
    table, crc = _crc_table(0x07, 8), 0
    for byte in data:
        crc = table[crc ^ byte]
    return crc


def _crc16(data: bytes) -> int:
    table, crc = _crc_table(0x8005, 16), 0
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ table[crc >> 8 ^ byte]
    return crc
