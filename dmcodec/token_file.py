"""The `.dmc` token file; the format is written down in docs/token-file.md."""

from __future__ import annotations

import dataclasses
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dmcodec.config import MAX_CODEBOOK_SIZE
from dmcodec.errors import ArgumentError, TokenFileError, TokenFileNotFoundError
from dmcodec.tokens import Codes, Tokens

MAGIC = b"\x89DMC"
VERSION = 1
_FIELDS = struct.Struct("<4sBBHIIIQ8s")  # everything the header's CRC covers
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size


@dataclasses.dataclass(frozen=True)
class Header:
    """What a token file says before its codes."""

    n_q: int
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
        return HEADER_BYTES + self.payload_bytes + _CRC.size


def pack(tokens: Tokens) -> bytes:
    """The token file of `tokens` as bytes."""
    model_id = bytes.fromhex(tokens.model_id or "00" * 8)
    header = _FIELDS.pack(
        MAGIC, VERSION, tokens.n_q, 0, tokens.codebook_size, tokens.hop_length, tokens.sample_rate,
        tokens.num_samples, model_id,
    )  # fmt: skip
    body = header + _CRC.pack(zlib.crc32(header)) + pack_codes(tokens.codes, tokens.codebook_size)
    return body + _CRC.pack(zlib.crc32(body))


def read(path: str | Path) -> Tokens:
    """Reads a whole token file.

    Raises:
        TokenFileNotFoundError: no such file.
        TokenFileError: not a token file, truncated, altered, or of a newer version.
    """
    with _opened(path) as file:
        header, head = _read_header(file, path)
        payload = file.read(header.payload_bytes)
        (crc,) = _CRC.unpack(file.read(_CRC.size))
    if crc != zlib.crc32(head + payload):
        raise TokenFileError(f"{path}: the checksum doesn't match; the file was altered or damaged")
    spare_bits = 8 * header.payload_bytes - header.num_frames * header.bits_per_frame
    if spare_bits and payload[-1] & ((1 << spare_bits) - 1):
        raise TokenFileError(f"{path}: the unused bits at its end are set; not written by a conforming writer")
    return _tokens(header, _unpack(header, payload, 0, header.num_frames), header.num_samples, path)


def read_header(path: str | Path) -> Header:
    """Reads and checks the header only."""
    with _opened(path) as file:
        return _read_header(file, path)[0]


def read_frames(path: str | Path, start: int, stop: int) -> Tokens:
    """Reads frames `start` to `stop` (exclusive, cut at the end of the clip) without reading the rest.

    The file's checksum is not checked: it covers what isn't read.
    """
    with _opened(path) as file:
        header, _ = _read_header(file, path)
        stop = min(stop, header.num_frames)
        if not 0 <= start < stop:
            raise ArgumentError(f"{path}: frames {start} to {stop} are not within its {header.num_frames} frames")
        first_byte, last_byte = start * header.bits_per_frame // 8, -(-stop * header.bits_per_frame // 8)
        file.seek(HEADER_BYTES + first_byte)
        payload = file.read(last_byte - first_byte)
    codes = _unpack(header, payload, start * header.bits_per_frame - 8 * first_byte, stop - start)
    num_samples = min(header.num_samples, stop * header.hop_length) - start * header.hop_length
    return _tokens(header, codes, num_samples, path)


def _opened(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise TokenFileNotFoundError(f"{path}: no such token file") from None
    except OSError as error:
        raise TokenFileError(f"{path}: can't be read ({error.strerror or error})") from None


def _read_header(file: BinaryIO, path: str | Path) -> tuple[Header, bytes]:
    head = file.read(HEADER_BYTES)
    if head[:4] != MAGIC:
        raise TokenFileError(f"{path}: not a token file (.dmc), its first bytes are {head[:4]!r}")
    if len(head) < HEADER_BYTES:
        raise TokenFileError(f"{path}: cut short within its header")
    if head[4] > VERSION:
        raise TokenFileError(f"{path}: token file version {head[4]}, this dmcodec reads up to {VERSION}; update it")
    if _CRC.unpack(head[-_CRC.size :])[0] != zlib.crc32(head[: -_CRC.size]):
        raise TokenFileError(f"{path}: the header's checksum doesn't match; the file was altered or damaged")
    _, version, n_q, reserved, codebook_size, hop, rate, num_samples, model_id = _FIELDS.unpack(head[: -_CRC.size])
    sound = version and n_q and not reserved and 2 <= codebook_size <= MAX_CODEBOOK_SIZE and hop and rate
    if not sound:
        raise TokenFileError(f"{path}: its header holds values out of range; not written by a conforming writer")
    header = Header(n_q, codebook_size, hop, rate, num_samples, model_id.hex() if any(model_id) else "")
    size = os.fstat(file.fileno()).st_size
    if size != header.file_bytes:
        fault = "cut short" if size < header.file_bytes else "followed by foreign bytes"
        raise TokenFileError(f"{path}: {fault} ({size} bytes, its header says {header.file_bytes})")
    return header, head


def _tokens(header: Header, codes: Codes, num_samples: int, path: str | Path) -> Tokens:
    if codes.size and int(codes.max()) >= header.codebook_size:
        raise TokenFileError(f"{path}: holds code {int(codes.max())}, outside 0 to {header.codebook_size - 1}")
    return Tokens(codes, num_samples, header.sample_rate, header.hop_length, header.codebook_size, header.model_id)


def pack_codes(codes: Codes, codebook_size: int) -> bytes:
    """Codes (n_q, frames) as bits, frame by frame, most significant bit first."""
    bits = (codebook_size - 1).bit_length()
    flat = codes.T.reshape(-1, 1)  # frame-major
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint16)
    return np.packbits(((flat >> shifts) & 1).astype(np.uint8)).tobytes()


def _unpack(header: Header, payload: bytes, skip_bits: int, frames: int) -> Codes:
    bits = (header.codebook_size - 1).bit_length()
    count = frames * header.n_q * bits
    unpacked = np.unpackbits(np.frombuffer(payload, np.uint8), count=skip_bits + count)[skip_bits:]
    values = unpacked.reshape(-1, bits).astype(np.uint32) @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint32))
    return values.astype(np.uint16).reshape(frames, header.n_q).T
