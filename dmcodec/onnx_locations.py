"""External data of an ONNX file: the paths that it takes weights from, read without the package onnx.

ONNX Runtime opens any path that a tensor's `location` names, so they are checked before a graph is loaded. The file is
protobuf; field numbers are those of onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

# Message -> number of a field that can hold tensors -> message of that field.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10


def external_locations(path: Path) -> set[str]:
    """Return every `location` of external data in the ONNX file at `path`.

    Raises:
        ValueError: not protobuf.
        OSError: the file can't be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return set(_locations(data))


def _locations(data: mmap.mmap) -> Iterator[str]:
    waiting = [("Model", 0, len(data))]
    while waiting:
        message, start, end = waiting.pop()
        if message == "Entry":
            yield from _location(data, start, end)
            continue
        fields = _FIELDS[message]
        for number, first, last in _parts(data, start, end):
            if number in fields:
                waiting.append((fields[number], first, last))


def _location(data: mmap.mmap, start: int, end: int) -> Iterator[str]:
    """Yield the values of an entry whose key is `location`; key and value come in any order and can be repeated."""
    parts = [(number, data[first:last]) for number, first, last in _parts(data, start, end)]
    if (_KEY, b"location") in parts:
        yield from (value.decode("utf-8", "replace") for number, value in parts if number == _VALUE)


def _parts(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of each length-delimited field of a message."""
    while start < end:
        tag, start = _varint(data, start, end)
        kind = tag & 7
        if kind == _VARINT:
            _, start = _varint(data, start, end)
            continue
        if kind == _BYTES:
            size, start = _varint(data, start, end)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {start}")
        if start + size > end:
            raise ValueError(f"a field reaches beyond its message at byte {start}")
        if kind == _BYTES:
            yield tag >> 3, start, start + size
        start += size


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """Return the variable-length number at `start`, and the position after it."""
    value = 0
    for place in range(start, min(end, start + _MOST_VARINT_BYTES)):
        byte = data[place]
        value |= (byte & 127) << 7 * (place - start)
        if byte < 128:
            return value, place + 1
    raise ValueError(f"a number has no end at byte {start}")
