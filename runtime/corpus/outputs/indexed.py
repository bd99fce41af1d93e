r"""Megatron's indexed dataset: a `.bin` of ids and the `.idx` that says where each sequence begins.

Source: Megatron-LM, `megatron/core/datasets/indexed_dataset.py` (classes `DType`, `_IndexWriter` and
`IndexedDatasetBuilder`, index version 1). The index, little-endian and without gaps: 9 bytes `MMIDIDX\0\0`; version
(uint64); code of the ids' type (uint8); number of sequences (uint64); number of document indices (uint64); ids of each
sequence (int32); first byte of each in the `.bin` (int64); document indices (int64): 0, then after each document the
number of sequences so far.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import DataError, OutputError

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
# Ids are written as uint16 below this size of the vocabulary, as Megatron's `DType.optimal_dtype` chooses.
UINT16_BELOW = 65500
_CODES: dict[np.dtype[Any], int] = {np.dtype("<u2"): 8, np.dtype("<i4"): 4}
_MOST_IDS = 2**31 - 1


def ids_dtype(vocabulary_size: int) -> np.dtype[np.integer]:
    """Return the type in which ids of a vocabulary are written: uint16 where it is below 65500, else int32."""
    return np.dtype("<u2") if vocabulary_size < UINT16_BELOW else np.dtype("<i4")


class IndexedWriter:
    """Writes sequences of ids, each a document of its own.

    Args:
        ids: the `.bin`.
        dtype: of `ids_dtype`.
    """

    def __init__(self, ids: BinaryIO, dtype: np.dtype[np.integer]) -> None:
        self._ids, self._dtype = ids, dtype
        self._lengths: list[int] = []

    def write(self, sequence: NDArray[np.integer]) -> None:
        """Append ids (n,) of one clip.

        Raises:
            OutputError: the format has no room for so long a sequence.
        """
        if len(sequence) > _MOST_IDS:
            raise OutputError(f"a clip of {len(sequence)} ids is too long for Megatron's format; cut it into parts")
        self._ids.write(sequence.astype(self._dtype).tobytes())
        self._lengths.append(len(sequence))

    def index(self) -> bytes:
        """Return the content of the `.idx` for what was written."""
        count = len(self._lengths)
        lengths = np.array(self._lengths, "<i4")
        ends = np.cumsum(lengths, dtype="<i8") * self._dtype.itemsize
        starts = np.concatenate([np.zeros(1, "<i8"), ends])[:count].astype("<i8")
        head = MAGIC + struct.pack("<QBQQ", VERSION, _CODES[self._dtype], count, count + 1)
        return b"".join([head, lengths.tobytes(), starts.tobytes(), np.arange(count + 1, dtype="<i8").tobytes()])


def read_indexed(ids: Path, index: Path) -> Iterator[NDArray[np.integer]]:
    """Yield the sequences of a `.bin` and its `.idx`, in order, without holding them all.

    Raises:
        DataError: the files are no such files, are cut short, or don't fit each other.
    """
    head = struct.Struct("<9sQBQQ")
    data = index.read_bytes()
    if len(data) < head.size or not data.startswith(MAGIC):
        raise DataError(f"{index}: is no index of Megatron's format, version {VERSION}")
    _, version, code, count, documents = head.unpack_from(data)
    dtypes = {number: dtype for dtype, number in _CODES.items()}
    if version != VERSION or code not in dtypes or len(data) != head.size + 12 * count + 8 * documents:
        raise DataError(f"{index}: is cut short, or of another version of Megatron's format")
    lengths = np.frombuffer(data, "<i4", count, head.size)
    starts = np.frombuffer(data, "<i8", count, head.size + 4 * count)
    dtype = dtypes[code]
    if ids.stat().st_size != int(lengths.sum(dtype="<i8")) * dtype.itemsize:
        raise DataError(f"{ids}: is not as long as {index} says")
    with ids.open("rb") as file:
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            file.seek(start)
            yield np.frombuffer(file.read(length * dtype.itemsize), dtype)
