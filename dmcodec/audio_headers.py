"""Uncompressed formats: the sizes in headers are held against the file's size, and mended where the file tells more.

libsndfile reads a truncated file as a shorter clip, and a file whose sizes are too small only as far as they say.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import AudioError
from .streams import Input, Piece
from .waveforms import warn

_FOUR_GIB = 1 << 32
_MAX_PADDING_BYTES = 1 << 16  # zeros that programs put behind the last sample, to fill a sector
_PLAIN = (1, 3, 6, 7, 0xFFFE)  # WAV formats with samples of a fixed size
_MPEG = 0x55
# More samples, or another file.
_NOT_BEHIND = (b"data", b"SSND", b"RIFF", b"RF64", b"BW64", b"riff", b"FORM", b"caff", b".snd", b"OggS", b"fLaC")
# Codecs of AIFF-C with samples of a fixed size; 0: that of the header.
_AIFF_WIDTHS = {
    **dict.fromkeys((b"none", b"sowt", b"twos", b"fl32", b"fl64", b"in24", b"in32", b"42ni", b"23ni", b"raw "), 0),
    **dict.fromkeys((b"ulaw", b"alaw"), 1),
}


@dataclass(frozen=True)
class Chunk:
    """A chunk: its name, where its content begins, and the length that it gives."""

    name: bytes
    start: int
    length: int


@dataclass(frozen=True)
class ChunkFormat:
    """How chunks are written: `head` of name and length; the length counts the head, or not; `align` of the next."""

    head: struct.Struct
    align: int
    counts_head: bool = False

    def chunks(self, source: Input, start: int) -> Iterator[Chunk]:
        """Yield the chunks from byte `start` on, as far as whole heads are there."""
        while len(head := source.read(start, self.head.size)) == self.head.size:
            name, length = self.head.unpack(head)
            chunk = Chunk(name, start + self.head.size, length - (self.head.size if self.counts_head else 0))
            yield chunk
            start = self.end(chunk)

    def end(self, chunk: Chunk) -> int:
        """Return where the next chunk begins."""
        end = chunk.start + max(0, chunk.length)
        return end + -(end - chunk.start) % self.align


_RIFF = ChunkFormat(struct.Struct("<4sI"), 2)
_IFF = ChunkFormat(struct.Struct(">4sI"), 2)
_CAF = ChunkFormat(struct.Struct(">4sq"), 1)
_W64 = ChunkFormat(struct.Struct("<16sQ"), 8, counts_head=True)


def unknown(length: int) -> bool:
    """Return whether programs that write into a pipe give this 32-bit length, since they don't know it.

    ffmpeg writes 2**32 - 1, sox and others a little less than 2**31, others 0.
    """
    return length == 0 or 0x7FFF_0000 <= length <= 0x8000_0000 or length >= 0xFFFF_0000


def data_length(source: Input, chunk: Chunk, kind: ChunkFormat, wraps: bool, guess: bool) -> int:
    """Return the true length of the samples in bytes.

    Args:
        source: the file.
        chunk: that of the samples.
        kind: of the chunks.
        wraps: whether lengths have 32 bits, so that some programs give the rest of a division by 2**32.
        guess: whether the length that the chunk gives means that it is not known.

    Raises:
        AudioError: samples are missing, or bytes follow that are no chunks.
    """
    name, available = source.name, max(0, source.size - chunk.start)
    times = available // _FOUR_GIB if wraps else 0
    for length in (max(0, chunk.length) + each * _FOUR_GIB for each in range(times, -1, -1)):
        fits = length <= available
        if fits and _are_chunks(source, Chunk(chunk.name, chunk.start, length), kind):
            return length
    if guess:
        return available
    _refuse_short(source, chunk.start + chunk.length)
    raise contradiction(name, f"{chunk.length} bytes of audio", f"{available - chunk.length} more follow")


def _refuse_short(source: Input, declared: int) -> None:
    if declared > source.size:
        missing = declared - source.size
        raise AudioError(f"{source.name}: cut short, {missing} of {declared} bytes are missing; copy it again")


def contradiction(name: str, declared: str, found: str) -> AudioError:
    """Return the error of a header that doesn't fit the file."""
    return AudioError(
        f"{name}: its header gives {declared}, but {found}; write it anew, a WAV file for example with "
        "`ffmpeg -ignore_length 1 -i IN OUT.wav`"
    )


def _are_chunks(source: Input, data: Chunk, kind: ChunkFormat) -> bool:
    """Return whether only chunks follow the samples, or a few zeros, or nothing."""
    end = data.start + data.length
    rest = source.size - end
    if rest <= 0 or (rest <= _MAX_PADDING_BYTES and not source.read(end, rest).strip(b"\0")):
        return True
    if rest == 128 and source.read(end, 3) == b"TAG":  # ID3v1
        return True
    return any(_is_chain(source, start, kind) for start in {kind.end(data), end})


def _is_chain(source: Input, start: int, kind: ChunkFormat) -> bool:
    end = start
    for chunk in kind.chunks(source, start):
        name = chunk.name[:4]
        if not re.fullmatch(rb"[ -~]{4}", name) or name in _NOT_BEHIND or chunk.length < 0:
            return False
        end = kind.end(chunk)
        if chunk.start + chunk.length > source.size:
            return False
    tail = source.read(min(end, source.size), _MAX_PADDING_BYTES)
    return end >= source.size or not tail.strip(b"\0")


def wav_parts(source: Input) -> list[list[Piece]] | None:
    """Return the files in a WAV, RF64 or BW64 file, one in general; None where libsndfile shall judge."""
    found, base = [], 0
    if source.size < 12:
        raise AudioError(f"{source.name}: can't be read as audio (cut short within its header)")
    while source.read(base, 4) in (b"RIFF", b"RF64", b"BW64") and source.read(base + 8, 4) == b"WAVE":
        following = _joined_wav(source, base)
        part = _wav(source.view(base, following or source.size))
        if part is None:
            return None
        found.append(_shifted(part, base))
        if following is None:
            return found
        base = following
    return None


def _joined_wav(source: Input, base: int) -> int | None:
    """Return where another WAV file begins, right after the end that the header of this one gives."""
    length = int.from_bytes(source.read(base + 4, 4), "little")
    end = base + 8 + length
    following = source.read(end, 12)
    return end if following[:4] in (b"RIFF", b"RF64") and following[8:] == b"WAVE" else None


def wav_mpeg(source: Input) -> Input | None:
    """Return the frames of a WAV file that holds MPEG audio; None for another one."""
    form = None
    for chunk in _RIFF.chunks(source, 12):
        if chunk.name == b"fmt ":
            form = source.read(chunk.start, 2)
        if chunk.name == b"data":
            if form != struct.pack("<H", _MPEG):
                return None
            length = data_length(source, chunk, _RIFF, wraps=True, guess=unknown(chunk.length))
            return source.view(chunk.start, chunk.start + length)
    return None


def _wav(source: Input) -> list[Piece] | None:
    form, data, sizes = None, None, None
    for chunk in _RIFF.chunks(source, 12):
        if chunk.name == b"data":
            data = chunk
            break
        if chunk.name == b"fmt ":
            form = source.read(chunk.start, min(chunk.length, 1 << 16))
        if chunk.name == b"ds64":
            sizes = source.read(chunk.start, 16)
    if data is None:
        _refuse_cut_header(source)
    if data is None or form is None or len(form) < 16:
        return None
    is_64 = source.read(0, 4) != b"RIFF"
    declared, guess = data.length, unknown(data.length)
    if is_64 and sizes is not None and len(sizes) == 16 and data.length == _FOUR_GIB - 1:
        declared = int.from_bytes(sizes[8:], "little")
        guess = declared in (0, _FOUR_GIB - 1) or declared >= 1 << 63
    length = data_length(source, Chunk(b"data", data.start, declared), _RIFF, not is_64, guess)
    tag, align = int.from_bytes(form[:2], "little"), int.from_bytes(form[12:14], "little")
    if length != declared and tag in _PLAIN:
        length = _whole_frames(source, length, align)
    if length == declared and source.read(0, 4) != b"BW64":
        return [(0, source.size)]
    if length + data.start < _FOUR_GIB:
        before = source.read(12, data.start - 8 - 12)
        if is_64:
            before = b"fmt " + struct.pack("<I", len(form)) + form + bytes(len(form) % 2)
        riff = b"RIFF" + struct.pack("<I", 4 + len(before) + 8 + length) + b"WAVE"
        return [riff + before + b"data" + struct.pack("<I", length), (data.start, length)]
    form_chunk = b"fmt " + struct.pack("<I", len(form)) + form + bytes(len(form) % 2)
    ds64 = b"ds64" + struct.pack(
        "<IQQQI", 28, 4 + 36 + len(form_chunk) + 8 + length, length, length // max(1, align), 0
    )
    head = b"RF64\xff\xff\xff\xffWAVE" + ds64 + form_chunk + b"data\xff\xff\xff\xff"
    return [head, (data.start, length)]


def _refuse_cut_header(source: Input) -> None:
    """Raise AudioError for a WAV file that ends before its samples begin, and not where its header says."""
    if source.size < 8 + int.from_bytes(source.read(4, 4), "little"):
        raise AudioError(f"{source.name}: can't be read as audio (cut short within its header)")


def _whole_frames(source: Input, length: int, align: int) -> int:
    """Return the length of whole frames where it is taken from the file's size; AudioError if it ends within one."""
    rest = length % align if align else 0
    if rest == 1 and length % 2 == 0:
        return length - 1  # the byte that fills a chunk of odd length
    if rest:
        raise AudioError(f"{source.name}: cut short within a sample ({rest} of {align} bytes are there)")
    return length


def w64_parts(source: Input) -> list[list[Piece]] | None:
    """Return the file with its true sizes; None where libsndfile shall judge."""
    data = next((chunk for chunk in _W64.chunks(source, 40) if chunk.name[:4] == b"data"), None)
    if data is None:
        return None
    guess = data.length <= 0 or data.length >= (1 << 63) - 64
    length = data_length(source, data, _W64, wraps=False, guess=guess)
    if length == data.length:
        return [[(0, source.size)]]
    head = source.read(0, data.start)
    sizes = (struct.pack("<Q", data.start + length), struct.pack("<Q", 24 + length))
    return [[head[:16] + sizes[0] + head[24:-8] + sizes[1], (data.start, length)]]


def caf_parts(source: Input) -> list[list[Piece]] | None:
    """Return the file with its true sizes; None where libsndfile shall judge."""
    data = next((chunk for chunk in _CAF.chunks(source, 8) if chunk.name == b"data"), None)
    if data is None:
        return None
    length = data_length(source, data, _CAF, wraps=False, guess=data.length <= 4)
    if length == data.length:
        return [[(0, source.size)]]
    return [[source.read(0, data.start - 8) + struct.pack(">q", length), (data.start, length)]]


def aiff_parts(source: Input) -> list[list[Piece]] | None:
    """Return the file with its true sizes; None where libsndfile shall judge."""
    if source.read(8, 4) not in (b"AIFF", b"AIFC"):
        _refuse_short(source, 8 + int.from_bytes(source.read(4, 4), "big"))
        return None
    common, data = None, None
    for chunk in _IFF.chunks(source, 12):
        common = chunk if chunk.name == b"COMM" else common
        data = chunk if chunk.name == b"SSND" and data is None else data
        if data is not None and common is not None:
            break
    if data is None or common is None:
        return None
    channels, frames, bits = struct.unpack(">HIH", source.read(common.start, 8).ljust(8, b"\0"))
    length = data_length(source, data, _IFF, wraps=True, guess=unknown(data.length) or data.length == 8)
    codec = source.read(common.start + 18, 4) if source.read(8, 4) == b"AIFC" else b"NONE"
    packed = codec.lower() not in _AIFF_WIDTHS
    width = channels * (_AIFF_WIDTHS.get(codec.lower()) or -(-bits // 8))
    found = (length - 8 - int.from_bytes(source.read(data.start, 4), "big")) // max(1, width)
    if length == data.length and (packed or frames in (found, 0) or not width):
        return [[(0, source.size)]] if frames or packed else [_aiff(source, common, data, length, found)]
    if length == data.length:
        raise contradiction(source.name, f"{frames} samples", f"there are {found}")
    if packed or length >= _FOUR_GIB:
        raise contradiction(source.name, f"{data.length} bytes of audio", f"there are {length}")
    _whole_frames(source, length - 8, width)
    return [_aiff(source, common, data, length, found)]


def _aiff(source: Input, common: Chunk, data: Chunk, length: int, frames: int) -> list[Piece]:
    if common.start > data.start:
        raise contradiction(source.name, f"{data.length} bytes of audio", f"there are {length}")
    head = bytearray(source.read(0, data.start))
    head[4:8] = struct.pack(">I", data.start + length - 8)
    head[common.start + 2 : common.start + 6] = struct.pack(">I", frames)
    head[data.start - 4 : data.start] = struct.pack(">I", length)
    return [bytes(head), (data.start, length)]


def au_parts(source: Input) -> list[list[Piece]] | None:
    """Return the file with its true size; None where libsndfile shall judge."""
    order = ">" if source.read(0, 4) == b".snd" else "<"
    head = source.read(0, 24)
    if len(head) < 24:
        return None
    start, declared = struct.unpack(f"{order}2I", head[4:12])
    length = data_length(source, Chunk(b"data", start, declared), _IFF, wraps=True, guess=unknown(declared))
    if length == declared:
        return [[(0, source.size)]]
    size = length if length < _FOUR_GIB - 1 else _FOUR_GIB - 1
    return [[head[:8] + struct.pack(f"{order}I", size) + source.read(12, start - 12), (start, length)]]


def nist_parts(source: Input) -> list[list[Piece]] | None:
    """Return the file; None where libsndfile shall judge. Its header is text, with the number of samples."""
    head = source.read(0, 1024)
    fields = dict(re.findall(rb"^(\w+) -(?:i|s\d+) (\S+)", head, re.MULTILINE))
    try:
        start = int(head[8:16])
        length = int(fields[b"sample_count"]) * int(fields[b"channel_count"]) * int(fields[b"sample_n_bytes"])
    except (KeyError, ValueError):
        return None
    if fields.get(b"sample_coding", b"pcm") not in (b"pcm", b"ulaw", b"alaw"):
        return None
    data_length(source, Chunk(b"data", start, length), _RIFF, wraps=False, guess=False)
    return [[(0, source.size)]]


def voc_parts(source: Input) -> list[list[Piece]] | None:
    """Return the files that are joined in one file, one in general; their blocks (type, 24-bit length) are walked.

    A block of type 0, of one byte, ends a file; libsndfile would take what follows for samples.
    """
    found: list[list[Piece]] = []
    base = 0
    while source.read(base, 4) == b"Crea":
        offset = base + int.from_bytes(source.read(base + 20, 2), "little")
        while len(head := source.read(offset, 4)) == 4 and head[0] and offset > base:
            offset += 4 + int.from_bytes(head[1:], "little")
            _refuse_short(source, offset)
        if offset == base or head[:1] != b"\0":
            return [*found, [(base, source.size - base)]]
        found.append([(base, offset + 1 - base)])
        base = offset + 1
    if source.read(base, _MAX_PADDING_BYTES).strip(b"\0"):
        warn(f"{source.name}: {source.size - base} bytes after its last block are no audio; they are left out")
    return found


def _shifted(pieces: list[Piece], base: int) -> list[Piece]:
    return [piece if isinstance(piece, bytes) else (piece[0] + base, piece[1]) for piece in pieces]


MENDERS: dict[bytes, Callable[[Input], list[list[Piece]] | None]] = {
    b"RIFF": wav_parts,
    b"RF64": wav_parts,
    b"BW64": wav_parts,
    b"riff": w64_parts,
    b"caff": caf_parts,
    b"FORM": aiff_parts,
    b".snd": au_parts,
    b"dns.": au_parts,
    b"NIST": nist_parts,
    b"Crea": voc_parts,  # Creative Voice File
}
