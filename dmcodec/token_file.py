"""The `.dmc` token file; the format is written down in docs/token-file.md."""

from __future__ import annotations

import dataclasses
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .codes import Codes, checked_codes
from .config import MAX_CODEBOOK_SIZE, MAX_N_Q
from .errors import ArgumentError, TokenFileError, TokenFileNotFoundError, TokensError
from .files import output_file
from .tokens import Tokens

# FOLDED: Token files written and read piece by piece; the format is written down in docs/token-file.md.


MAGIC = b"\x89DMC"
VERSION = 1
_FIELDS = struct.Struct("<4sBBBBIIIQ8s")  # everything the header's CRC covers
CRC = struct.Struct("<I")
_BLOCK_FRAMES = 1 << 14
HEADER_BYTES = _FIELDS.size + CRC.size


@dataclasses.dataclass(frozen=True)
class Header:
    """What a token file says before its codes."""

    n_q: int
    first_level: int
    codebook_size: int
    hop_length: int
    sample_rate: int
    num_samples: int
    model_id: str

    @property
    def num_frames(self) -> int:
        return -(-self.num_samples // self.hop_length)

    @property
    def bits_per_frame(self) -> int:
        return self.n_q * (self.codebook_size - 1).bit_length()

    @property
    def payload_bytes(self) -> int:
        return -(-self.num_frames * self.bits_per_frame // 8)

    @property
    def file_bytes(self) -> int:
        return HEADER_BYTES + self.payload_bytes + CRC.size

    def pack(self) -> bytes:
        """The header's 40 bytes."""
        fields = _FIELDS.pack(
            MAGIC, VERSION, self.n_q, self.first_level, 0, self.codebook_size, self.hop_length, self.sample_rate,
            self.num_samples, bytes.fromhex(self.model_id or "00" * 8),
        )  # fmt: skip
        return fields + CRC.pack(zlib.crc32(fields))


def pack(tokens: Tokens) -> bytes:
    """The token file of `tokens` as bytes."""
    header = Header(
        tokens.n_q, tokens.first_level, tokens.codebook_size, tokens.hop_length, tokens.sample_rate,
        tokens.num_samples, tokens.model_id,
    )  # fmt: skip
    payload = np.packbits(code_bits(tokens.codes, tokens.codebook_size)).tobytes()
    return header.pack() + payload + CRC.pack(zlib.crc32(payload))


def read(path: str | Path) -> Tokens:
    """Reads a whole token file.

    Raises:
        TokenFileNotFoundError: no such file.
        TokenFileError: not a token file, truncated, altered, or of a newer version.
    """
    with _opened(path) as file:
        header = _read_header(file, path)
        payload = file.read(header.payload_bytes)
        check_payload_crc(zlib.crc32(payload), file.read(CRC.size), path)
    check_spare_bits(header, payload[-1:], path)
    codes = unpack_codes(header, payload, 0, header.num_frames, path)
    return _tokens(header, codes, header.num_samples)


def read_header(path: str | Path) -> Header:
    """Reads and checks the header only: what a token file holds, without its codes."""
    with _opened(path) as file:
        return _read_header(file, path)


def read_frames(path: str | Path, start: int, stop: int) -> Tokens:
    """Reads frames `start` to `stop` (exclusive, cut at the end of the clip) without reading the rest.

    The codes' checksum is not checked: it covers what isn't read.
    """
    with _opened(path) as file:
        header = _read_header(file, path)
        stop = min(stop, header.num_frames)
        if not 0 <= start < stop:
            raise ArgumentError(f"{path}: frames {start} to {stop} are not within its {header.num_frames} frames")
        first_byte, last_byte = start * header.bits_per_frame // 8, -(-stop * header.bits_per_frame // 8)
        file.seek(HEADER_BYTES + first_byte)
        payload = file.read(last_byte - first_byte)
    codes = unpack_codes(header, payload, start * header.bits_per_frame - 8 * first_byte, stop - start, path)
    num_samples = min(header.num_samples, stop * header.hop_length) - start * header.hop_length
    return _tokens(header, codes, num_samples)


def _opened(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise TokenFileNotFoundError(f"{path}: no such token file") from None
    except OSError as error:
        raise TokenFileError(f"{path}: can't be read ({error.strerror or error})") from None


def _read_header(file: BinaryIO, path: str | Path) -> Header:
    header = parse_header(file.read(HEADER_BYTES), path)
    size = os.fstat(file.fileno()).st_size
    if size != header.file_bytes:
        fault = "cut short" if size < header.file_bytes else "followed by foreign bytes"
        raise TokenFileError(f"{path}: {fault} ({size} bytes, its header says {header.file_bytes})")
    return header


def parse_header(head: bytes, path: str | Path) -> Header:
    """Reads and checks the first 40 bytes of a token file; `path` names it in errors."""
    if head[:4] != MAGIC:
        raise TokenFileError(f"{path}: not a token file (.dmc), its first bytes are {head[:4]!r}")
    if len(head) < HEADER_BYTES:
        raise TokenFileError(f"{path}: cut short within its header")
    if head[4] > VERSION:
        raise TokenFileError(f"{path}: token file version {head[4]}, this dmcodec reads up to {VERSION}; update it")
    if CRC.unpack(head[-CRC.size :])[0] != zlib.crc32(head[: -CRC.size]):
        raise TokenFileError(f"{path}: the header's checksum doesn't match; the file was altered or damaged")
    _, version, n_q, first_level, reserved, size, hop, rate, num_samples, model_id = _FIELDS.unpack(head[: -CRC.size])
    sound = version and n_q and not reserved and 2 <= size <= MAX_CODEBOOK_SIZE and hop and rate
    if not sound or n_q + first_level > MAX_N_Q:
        raise TokenFileError(f"{path}: its header holds values out of range; not written by a conforming writer")
    return Header(n_q, first_level, size, hop, rate, num_samples, model_id.hex() if any(model_id) else "")


def check_payload_crc(computed: int, stored: bytes, path: str | Path) -> None:
    """Compares the CRC-32 of the codes with the file's last four bytes."""
    if len(stored) < CRC.size or CRC.unpack(stored)[0] != computed:
        raise TokenFileError(f"{path}: the checksum doesn't match; the file was altered or damaged")


def check_spare_bits(header: Header, last_byte: bytes, path: str | Path) -> None:
    """Refuses unused bits that are set in the last byte of the codes."""
    spare_bits = 8 * header.payload_bytes - header.num_frames * header.bits_per_frame
    if spare_bits and last_byte[0] & ((1 << spare_bits) - 1):
        raise TokenFileError(f"{path}: the unused bits at its end are set; not written by a conforming writer")


def _tokens(header: Header, codes: Codes, num_samples: int) -> Tokens:
    return Tokens(
        codes, num_samples, header.sample_rate, header.hop_length, header.codebook_size, header.model_id,
        header.first_level,
    )  # fmt: skip


def code_bits(codes: Codes, codebook_size: int) -> NDArray[np.uint8]:
    """Codes (n_q, frames) as bits (zeros and ones), frame by frame, most significant bit first."""
    bits = (codebook_size - 1).bit_length()
    flat = codes.T.reshape(-1, 1)  # frame-major
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    return ((flat >> shifts) & 1).astype(np.uint8).reshape(-1)


def unpack_codes(header: Header, payload: bytes, skip_bits: int, frames: int, path: str | Path) -> Codes:
    """Codes (n_q, frames) from packed bytes, `skip_bits` of which come before them."""
    bits = (header.codebook_size - 1).bit_length()
    weights = 1 << np.arange(bits - 1, -1, -1, dtype=np.uint32)
    packed = np.frombuffer(payload, np.uint8)
    codes = np.empty((frames, header.n_q), np.uint16)
    # In blocks of whole bytes: each bit takes a byte or more while it is unpacked.
    for start in range(0, frames, _BLOCK_FRAMES):
        block = codes[start : start + _BLOCK_FRAMES]
        first_bit = skip_bits + start * header.bits_per_frame
        offset, count = first_bit % 8, block.size * bits
        unpacked = np.unpackbits(packed[first_bit // 8 : -(-(first_bit + count) // 8)], count=offset + count)[offset:]
        values = unpacked.reshape(-1, bits).astype(np.uint32) @ weights
        if int(values.max()) >= header.codebook_size:
            raise TokenFileError(f"{path}: holds code {int(values.max())}, outside 0 to {header.codebook_size - 1}")
        block[:] = values.reshape(block.shape)
    return codes.T


class TokenFileWriter:
    """Writes codes as they come; made by `token_file_writer`."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file, self._header = file, header
        self._bits: NDArray[np.uint8] = np.zeros(0, np.uint8)  # those that don't fill a byte yet
        self._crc = 0
        self._frames = 0
        file.write(bytes(HEADER_BYTES))

    def write(self, codes: Codes) -> None:
        """Appends codes (n_q, frames)."""
        codes = checked_codes(codes, self._header.codebook_size)
        if codes.shape[0] != self._header.n_q:
            raise TokensError(f"codes: expected {self._header.n_q} levels, got {codes.shape[0]}")
        self._frames += codes.shape[1]
        bits = np.concatenate([self._bits, code_bits(codes, self._header.codebook_size)])
        whole = len(bits) // 8 * 8
        self._append(np.packbits(bits[:whole]).tobytes())
        self._bits = bits[whole:]

    def finish(self, num_samples: int) -> Header:
        """Writes the rest, the checksum, and the header: now it is a token file."""
        header = dataclasses.replace(self._header, num_samples=num_samples)
        if header.num_frames != self._frames:
            raise TokensError(f"tokens: {num_samples} samples make {header.num_frames} frames, not {self._frames}")
        self._append(np.packbits(self._bits).tobytes())
        self._file.write(CRC.pack(self._crc))
        self._file.seek(0)
        self._file.write(header.pack())
        return header

    def _append(self, payload: bytes) -> None:
        self._file.write(payload)
        self._crc = zlib.crc32(payload, self._crc)


@contextmanager
def token_file_writer(path: str | Path, header: Header) -> Iterator[TokenFileWriter]:
    """A writer of the token file `path`, which appears when the block ends without an error; else nothing is left.

    Args:
        path: the file.
        header: all that is known of the clip; `num_samples` is given to `finish`.
    """
    with output_file(path) as temporary, temporary.open("wb") as file:
        yield TokenFileWriter(file, header)


class TokenFileReader:
    """Reads a token file from front to back, from a pipe, say.

    Codes come out before the checksum at the end can be checked: an error then says that they can't be trusted.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.header = parse_header(file.read(HEADER_BYTES), name)

    def chunks(self, frames: int) -> Iterator[Codes]:
        """Codes (n_q, n) of about `frames` frames at a time; raises TokenFileError where the file is cut or altered."""
        header = self.header
        step = 8 // math.gcd(8, header.bits_per_frame)  # frames that fill whole bytes
        frames = -(-frames // step) * step
        crc, left = 0, header.num_frames
        while left:
            count = min(frames, left)
            size = -(-count * header.bits_per_frame // 8)
            payload = self._file.read(size)
            if len(payload) < size:
                raise TokenFileError(f"{self._name}: cut short, {left} of {header.num_frames} frames are missing")
            crc = zlib.crc32(payload, crc)
            left -= count
            if not left:
                check_spare_bits(header, payload[-1:], self._name)
            yield unpack_codes(header, payload, 0, count, self._name)
        check_payload_crc(crc, self._file.read(CRC.size), self._name)
        if self._file.read(1):
            raise TokenFileError(f"{self._name}: followed by foreign bytes")
