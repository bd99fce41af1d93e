"""The `.dmc` token file as arrays: one writer and one reader. docs/reference/token-file.md describes the format."""

from __future__ import annotations

import dataclasses
import io
import math
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from .codes import Codes, checked_codes
from .config import MAX_CODEBOOK_SIZE, MAX_N_Q, bits_per_code
from .errors import TokenFileError, TokenFileNotFoundError, TokensError
from .files import output_file
from .streams import is_path, source_name, write_stream

MAGIC = b"\x89DMC"
VERSION = 1
_FIELDS = struct.Struct("<4sBBBBIIIQ8s")  # all that the header's CRC covers
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size
# Frames that are packed or unpacked at a time: each bit takes a byte or more meanwhile. A multiple of 8, so that every
# block but the last fills whole bytes.
_BLOCK_FRAMES = 1 << 14


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a token file; the fields are those of `dmcodec.tokens.Tokens`."""

    n_q: int
    first_level: int
    codebook_size: int
    hop_length: int
    sample_rate: int
    num_samples: int
    model_id: str

    @property
    def num_frames(self) -> int:
        """Latent frames."""
        return -(-self.num_samples // self.hop_length)

    @property
    def bits_per_frame(self) -> int:
        """Bits of the packed codes of one frame."""
        return self.n_q * bits_per_code(self.codebook_size)

    @property
    def payload_bytes(self) -> int:
        """Bytes of the packed codes."""
        return self.byte_range(0, self.num_frames)[1]

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return HEADER_BYTES + self.payload_bytes + _CRC.size

    def byte_range(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first byte of the payload that holds bits of frames `start` to `stop`, and the byte after them."""
        return start * self.bits_per_frame // 8, -(-stop * self.bits_per_frame // 8)

    def pack(self) -> bytes:
        """Return the 40 bytes of the header."""
        fields = _FIELDS.pack(
            MAGIC, VERSION, self.n_q, self.first_level, 0, self.codebook_size, self.hop_length, self.sample_rate,
            self.num_samples, bytes.fromhex(self.model_id or "00" * 8),
        )  # fmt: skip
        return fields + _CRC.pack(zlib.crc32(fields))

    @classmethod
    def parse(cls, head: bytes, name: str) -> Header:
        """Read and check the first 40 bytes of a token file; `name` is the file's in errors."""
        if not head:
            raise TokenFileError(f"{name}: is empty, and not a token file (.dmc)")
        if head[:4] != MAGIC:
            raise TokenFileError(f"{name}: not a token file (.dmc), its first bytes are {head[:4]!r}")
        if len(head) < HEADER_BYTES:
            raise TokenFileError(f"{name}: cut short within its header")
        if head[4] > VERSION:
            raise TokenFileError(f"{name}: token file version {head[4]}, this dmcodec reads up to {VERSION}; update it")
        fields, stored = head[: _FIELDS.size], head[_FIELDS.size :]
        if _CRC.unpack(stored)[0] != zlib.crc32(fields):
            raise TokenFileError(f"{name}: the header's checksum doesn't match; the file was altered or damaged")
        _, version, n_q, first_level, reserved, size, hop, rate, num_samples, model_id = _FIELDS.unpack(fields)
        in_range = version and n_q and not reserved and 2 <= size <= MAX_CODEBOOK_SIZE and hop and rate
        if not in_range or n_q + first_level > MAX_N_Q:
            raise TokenFileError(f"{name}: its header holds values out of range; not written by a conforming writer")
        return cls(n_q, first_level, size, hop, rate, num_samples, model_id.hex() if any(model_id) else "")


@contextmanager
def token_file_writer(path: str | Path | BinaryIO, header: Header) -> Iterator[TokenFileWriter]:
    """Open a token file for writing. It appears when the block ends without an error; else nothing is left.

    Args:
        path: the file, or a binary file object, which gets all bytes when the block ends.
        header: what is known of the clip; `num_samples` is given to `TokenFileWriter.finish`.
    """
    if is_path(path):
        with output_file(cast(str, path)) as temporary, temporary.open("wb") as file:
            yield TokenFileWriter(file, header)
        return
    content = io.BytesIO()
    yield TokenFileWriter(content, header)
    write_stream(cast(BinaryIO, path), content.getvalue(), source_name(path))


class TokenFileWriter:
    """Writes codes in chunks of any size; made by `token_file_writer`."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file, self._header = file, header
        self._bits: NDArray[np.uint8] = np.zeros(0, np.uint8)  # those that don't fill a byte yet
        self._crc = 0
        self._frames = 0
        file.write(bytes(HEADER_BYTES))

    def write(self, codes: Codes) -> None:
        """Append codes (n_q, frames)."""
        codes = checked_codes(codes, self._header.codebook_size)
        if codes.shape[0] != self._header.n_q:
            raise TokensError(f"codes: expected {self._header.n_q} levels, got {codes.shape[0]}")
        self._frames += codes.shape[1]
        for start in range(0, codes.shape[1], _BLOCK_FRAMES):
            new = _bits_of_codes(codes[:, start : start + _BLOCK_FRAMES], self._header.codebook_size)
            bits = np.concatenate([self._bits, new])
            whole = len(bits) // 8 * 8
            self._append(bits[:whole])
            self._bits = bits[whole:]

    def finish(self, num_samples: int) -> None:
        """Write the last bits, the checksum, and the header, which makes the file a token file."""
        header = dataclasses.replace(self._header, num_samples=num_samples)
        if header.num_frames != self._frames:
            raise TokensError(f"tokens: {num_samples} samples make {header.num_frames} frames, not {self._frames}")
        self._append(self._bits)
        self._file.write(_CRC.pack(self._crc))
        self._file.seek(0)
        self._file.write(header.pack())

    def _append(self, bits: NDArray[np.uint8]) -> None:
        payload = np.packbits(bits).tobytes()
        self._file.write(payload)
        self._crc = zlib.crc32(payload, self._crc)


def read_header(path: str | Path) -> Header:
    """Read and check the header only, not the codes. Raises the errors of `token_file_reader`."""
    with token_file_reader(path) as reader:
        return reader.header


@contextmanager
def token_file_reader(path: str | Path | BinaryIO) -> Iterator[TokenFileReader]:
    """Open a token file for reading; its header is checked, and the file's size against it.

    Args:
        path: the file (also a pipe), or a binary file object, which is read from its position to its end.

    Raises:
        TokenFileNotFoundError: no such file.
        TokenFileError: not a token file, truncated, altered, or of a newer version.
    """
    name, named = source_name(path), is_path(path)
    try:
        # Closed below; what the block raises is no error of opening.
        file = open(cast(str, path), "rb") if named else _content(cast(BinaryIO, path))  # noqa: SIM115
        if not file.seekable():
            with file:
                file = _content(file)
    except (FileNotFoundError, IsADirectoryError) as error:
        problem = "no such token file" if isinstance(error, FileNotFoundError) else "is a folder, not a token file"
        raise TokenFileNotFoundError(f"{name}: {problem}") from None
    except (OSError, ValueError) as error:
        if "null byte" in str(error):
            raise TokenFileNotFoundError(f"{name}: no such token file") from None
        raise TokenFileError(f"{name}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    with file:
        reader = TokenFileReader(file, name)
        size, expected = file.seek(0, io.SEEK_END), reader.header.file_bytes
        file.seek(HEADER_BYTES)
        if size != expected:
            problem = "cut short" if size < expected else "followed by foreign bytes"
            raise TokenFileError(f"{name}: {problem} ({size} bytes, its header says {expected})")
        yield reader


def _content(file: BinaryIO) -> BinaryIO:
    """Return all that a file object still holds: it may not seek, and a raw one may return less than is asked for."""
    content = io.BytesIO()
    shutil.copyfileobj(file, content)
    content.seek(0)
    return content


class TokenFileReader:
    """Reads a token file, or a stream of the same bytes; made by `token_file_reader` for files.

    Args:
        file: at the first byte of the header.
        name: the file's in errors.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.header = Header.parse(file.read(HEADER_BYTES), name)

    def read_all(self) -> Codes:
        """Return all codes (n_q, frames)."""
        chunks = list(self.chunks(max(1, self.header.num_frames)))
        return chunks[0] if chunks else np.empty((self.header.n_q, 0), np.uint16)

    def read_frames(self, start: int, stop: int) -> Codes:
        """Return the codes (n_q, stop - start) of some frames, without reading the rest. The file must be seekable.

        The codes' checksum is not compared: it covers the whole file.
        """
        self._file.seek(HEADER_BYTES + self.header.byte_range(start, stop)[0])
        return self._unpack(self._read(start, stop), start, stop)

    def chunks(self, frames: int) -> Iterator[Codes]:
        """Yield the codes (n_q, n) in order, about `frames` frames at a time.

        The checksum is at the end of the file. It is compared before the last chunk is yielded; an error after some
        chunks means that these can't be trusted.

        Raises:
            TokenFileError: the file is cut short, altered, or followed by other bytes.
        """
        step = 8 // math.gcd(8, self.header.bits_per_frame)  # frames that fill whole bytes
        step *= -(-frames // step)
        total, crc = self.header.num_frames, 0
        for start in range(0, total, step):
            stop = min(start + step, total)
            payload = self._read(start, stop)
            crc = zlib.crc32(payload, crc)
            if stop == total:
                self._check_end(payload[-1:], crc)
            yield self._unpack(payload, start, stop)
        if not total:
            self._check_end(b"", crc)
        if self._file.read(1):
            raise TokenFileError(f"{self._name}: followed by foreign bytes")

    def _read(self, start: int, stop: int) -> bytes:
        """Read the bytes of frames `start` to `stop`; the file position must be at the first of them."""
        first, last = self.header.byte_range(start, stop)
        payload = self._file.read(last - first)
        if len(payload) < last - first:
            total = self.header.num_frames
            raise TokenFileError(f"{self._name}: cut short, {total - start} of {total} frames are missing")
        return payload

    def _check_end(self, last_byte: bytes, crc: int) -> None:
        """Compare the checksum that follows the codes, and refuse unused bits that are set before it."""
        stored = self._file.read(_CRC.size)
        if len(stored) < _CRC.size or _CRC.unpack(stored)[0] != crc:
            raise TokenFileError(f"{self._name}: the checksum doesn't match; the file was altered or damaged")
        header = self.header
        spare_bits = 8 * header.payload_bytes - header.num_frames * header.bits_per_frame
        if spare_bits and last_byte[0] & ((1 << spare_bits) - 1):
            raise TokenFileError(
                f"{self._name}: the unused bits at its end are set; not written by a conforming writer"
            )

    def _unpack(self, payload: bytes, start: int, stop: int) -> Codes:
        header = self.header
        packed = np.frombuffer(payload, np.uint8)
        skipped_bits = start * header.bits_per_frame % 8
        codes = np.empty((stop - start, header.n_q), np.uint16)
        for first in range(0, stop - start, _BLOCK_FRAMES):
            block = codes[first : first + _BLOCK_FRAMES]
            first_bit = skipped_bits + first * header.bits_per_frame
            block[:] = _codes_of_bits(packed, first_bit, block.size, header.codebook_size).reshape(block.shape)
            if int(block.max()) >= header.codebook_size:
                raise TokenFileError(
                    f"{self._name}: holds code {int(block.max())}, outside 0 to {header.codebook_size - 1}"
                )
        return codes.T


def pack_codes(codes: Codes, codebook_size: int) -> bytes:
    """Return codes (n_q, frames) packed as in a token file: frame by frame, bits_per_code bits each, no header."""
    blocks = (codes[:, start : start + _BLOCK_FRAMES] for start in range(0, codes.shape[1], _BLOCK_FRAMES))
    return b"".join(np.packbits(_bits_of_codes(block, codebook_size)).tobytes() for block in blocks)


def packed_bytes(n_q: int, frames: int, codebook_size: int) -> int:
    """Return the bytes of packed codes (n_q, frames)."""
    return -(-n_q * frames * bits_per_code(codebook_size) // 8)


def unpack_codes(packed: bytes, n_q: int, frames: int, codebook_size: int) -> Codes:
    """Return the codes (n_q, frames) of `pack_codes`.

    Raises:
        TokensError: another number of bytes, or a code that the codebook does not have.
    """
    if len(packed) != packed_bytes(n_q, frames, codebook_size):
        raise TokensError(f"codes: {n_q} x {frames} packed codes are not {len(packed)} bytes")
    bits, data = bits_per_code(codebook_size), np.frombuffer(packed, np.uint8)
    codes = np.empty((frames, n_q), np.uint16)
    for first in range(0, frames, _BLOCK_FRAMES):
        block = codes[first : first + _BLOCK_FRAMES]
        block[:] = _codes_of_bits(data, first * n_q * bits, block.size, codebook_size).reshape(block.shape)
    return checked_codes(codes.T, codebook_size)


def _bits_of_codes(codes: Codes, codebook_size: int) -> NDArray[np.uint8]:
    """Return codes (n_q, frames) as bits (zeros and ones), frame by frame, most significant bit first."""
    shifts = np.arange(bits_per_code(codebook_size) - 1, -1, -1, dtype=np.uint16)
    return ((codes.T.reshape(-1, 1) >> shifts) & 1).astype(np.uint8).reshape(-1)


def _codes_of_bits(packed: NDArray[np.uint8], first_bit: int, count: int, codebook_size: int) -> Codes:
    """Return `count` codes (count,) that begin at bit `first_bit` of packed bytes."""
    bits = bits_per_code(codebook_size)
    offset, end_bit = first_bit % 8, first_bit + count * bits
    unpacked = np.unpackbits(packed[first_bit // 8 : -(-end_bit // 8)], count=offset + count * bits)[offset:]
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint32)
    return (unpacked.reshape(-1, bits).astype(np.uint32) @ weights).astype(np.uint16)
