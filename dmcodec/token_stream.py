"""Token files written and read piece by piece; the format is written down in docs/token-file.md."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import TokenFileError, TokensError
from dmcodec.files import output_file
from dmcodec.token_file import (
    CRC,
    HEADER_BYTES,
    Header,
    check_payload_crc,
    check_spare_bits,
    code_bits,
    parse_header,
    unpack_codes,
)
from dmcodec.tokens import Codes, checked_codes


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
