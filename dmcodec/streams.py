"""Inputs and outputs that are paths, pipes or file objects: read as seekable files, of which parts can be viewed."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from .errors import ArgumentError, AudioError, AudioFileNotFoundError, DmcodecError, OutputError

# What can be read: a path, also of a pipe such as /dev/stdin, or a binary file object.
AudioSource = str | Path | BinaryIO
# What can be written to: a path, or a binary file object.
AudioTarget = str | Path | BinaryIO

_BLOCK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 16 << 20  # of a pipe; what is longer goes to a temporary file


@dataclass(frozen=True)
class Input:
    """A seekable file whose audio begins at byte 0. `name` is that in errors."""

    file: BinaryIO
    name: str

    @cached_property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.seek(0, io.SEEK_END)

    def read(self, start: int, length: int) -> bytes:
        """Return the bytes from `start` on; fewer at the end of the file, none before its begin."""
        if start < 0:
            return b""
        self.file.seek(start)
        return self.file.read(max(0, length))

    def view(self, start: int, stop: int) -> Input:
        """Return a part of this input as an input."""
        return Input(cast(BinaryIO, PieceReader(self.file, [(start, stop - start)])), self.name)


def source_name(source: Any) -> str:
    """Return the name of a source in messages: its path, or the name of a file object."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) if isinstance(os.fspath(source), str) else repr(os.fspath(source))
    name = getattr(source, "name", None)
    if name in (0, "<stdin>"):
        return "stdin"
    if isinstance(name, int):
        return f"<file {name}>"
    return str(name) if name else f"<{type(source).__name__}>"


def is_path(source: Any) -> bool:
    """Return whether a source or an output is a path, and not a file object.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(source, (str, os.PathLike)) and isinstance(os.fspath(source), str):
        return True
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise ArgumentError("bytes are no file; wrap their content as io.BytesIO(...), or give a path as str or Path")
    if isinstance(source, io.TextIOBase):
        raise ArgumentError(f"{source_name(source)}: is a text stream; give its .buffer, or open the file in binary")
    if not hasattr(source, "read") and not hasattr(source, "write"):
        raise ArgumentError(f"expected a path or a binary file object, not {type(source).__name__}")
    return False


@contextmanager
def opened_input(source: AudioSource) -> Iterator[Input]:
    """Open an audio source. What can't seek is copied to a temporary file first.

    Raises:
        ArgumentError: no path and no binary file object.
        AudioFileNotFoundError: no such file, or a folder.
        AudioError: can't be read, is a device, or was changed meanwhile.
    """
    name = source_name(source)
    if not is_path(source):
        file = cast(BinaryIO, source)
        with _explained(name):
            if _at_start(file):
                yield Input(file, name)
            else:
                with _copy(file) as copy:
                    yield Input(copy, name)
        return
    path = str(source)
    if not os.path.exists(path) or os.path.isdir(path):  # noqa: PTH110, PTH112 - Path's methods raise for long names
        problem = "is a folder, not an audio file" if os.path.isdir(path) else "no such audio file"  # noqa: PTH112
        raise AudioFileNotFoundError(f"{path}: {problem}")
    with _explained(name):
        mode = os.stat(path).st_mode  # noqa: PTH116
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise AudioError(f"{path}: is a device, not an audio file")
        with open(path, "rb") as file:
            if stat.S_ISREG(mode):
                before = os.fstat(file.fileno())
                yield Input(file, name)
                _refuse_changed(path, before, os.fstat(file.fileno()))
            else:
                with _copy(file) as copy:
                    yield Input(copy, name)


def write_stream(target: BinaryIO, data: bytes, name: str) -> None:
    """Write bytes to a stream at once.

    Raises:
        BrokenPipeError: the reader has ended.
        OutputError: the stream can't be written.
    """
    try:
        view = memoryview(data)
        while len(view):  # a raw stream may take only a part
            view = view[target.write(view) or len(view) :]
        if hasattr(target, "flush"):
            target.flush()
    except (BrokenPipeError, DmcodecError):  # the command line's stdout raises errors of ours
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{name}: can't be written ({reason})") from error


def _at_start(file: BinaryIO) -> bool:
    try:
        return file.seekable() and file.tell() == 0
    except (AttributeError, OSError):
        return False


@contextmanager
def _copy(file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield a seekable copy of the rest of `file`."""
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as copy:
        shutil.copyfileobj(file, copy, _BLOCK_BYTES)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _refuse_changed(path: str, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise AudioError(f"{path}: was changed while it was read; try again when it is complete")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn errors of a file into an AudioError that names it."""
    try:
        yield
    except DmcodecError:
        raise
    except OSError as error:
        raise AudioError(f"{name}: can't be read ({error.strerror or error})") from None
    except (ValueError, TypeError) as error:
        if "closed" not in str(error) and "bytes" not in str(error):
            raise
        raise AudioError(f"{name}: can't be read ({error})") from None


# Bytes to put in, or (start, length) of the file.
Piece = bytes | tuple[int, int]


class PieceReader(io.RawIOBase):
    """A read-only, seekable file made of pieces of another file and of bytes."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file, self._pieces, self._position = file, list(pieces), 0
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + (len(piece) if isinstance(piece, bytes) else piece[1]))
        self._current = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer across pieces: libsndfile takes a short read for the end of the file."""
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and self._position < self._starts[-1]:
            count = self._read_piece(view[done:])
            if count == 0:
                break  # the file became shorter
            done += count
            self._position += count
        return done

    def _read_piece(self, view: memoryview) -> int:
        while self._position >= self._starts[self._current + 1]:
            self._current += 1
        while self._position < self._starts[self._current]:
            self._current -= 1
        piece, offset = self._pieces[self._current], self._position - self._starts[self._current]
        count = min(len(view), self._starts[self._current + 1] - self._position)
        if isinstance(piece, bytes):
            view[:count] = piece[offset : offset + count]
            return count
        self._file.seek(piece[0] + offset)
        data = self._file.read(count)
        view[: len(data)] = data
        return len(data)


class Scanner:
    """Random access to the bytes of an input, by blocks, for code that looks at a few bytes in many places."""

    def __init__(self, source: Input) -> None:
        self.source, self.size = source, source.size
        self._start, self._block = 0, b""

    def peek(self, offset: int, length: int) -> bytes:
        """Return the bytes from `offset` on; fewer at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._block):
            self._start, begin = offset, 0
            self._block = self.source.read(offset, max(length, _BLOCK_BYTES))
        return self._block[begin : begin + length]

    def find(self, what: bytes, start: int) -> int:
        """Return where `what` is next, from `start` on; -1 if it is nowhere."""
        while start < self.size:
            block = self.peek(start, _BLOCK_BYTES)
            if (index := block.find(what)) >= 0:
                return start + index
            if start + len(block) >= self.size:
                break
            start += max(1, len(block) - len(what) + 1)
        return -1


def joined(pieces: Sequence[tuple[int, int]]) -> list[Piece]:
    """Merge pieces (start, length) that follow each other in the file."""
    merged: list[tuple[int, int]] = []
    for start, length in pieces:
        if merged and sum(merged[-1]) == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((start, length))
    return list(merged)
