"""The spool: what the encode of a long clip keeps between its sweeps, in memory or in files.

An array of the spool has the shape [frames, width] and is written and read by frames. In memory it takes room for what
is written only. Files are read and written by position, and not mapped, so that they don't count as resident memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ArgumentError, OutputError

MEMORY = "memory"
MEMORY_BYTES = 256 << 20  # a larger spool goes to files
_CHUNK_FRAMES = 1024
_ITEM_BYTES = 4

Array = NDArray[np.float32]


def check_place(place: str | Path | None) -> None:
    """Raise ArgumentError if `place` is not None, "memory", or a folder that is there."""
    if place is None or place == MEMORY:
        return
    if not isinstance(place, (str, os.PathLike)):
        raise ArgumentError(f"spool must be a folder, {MEMORY!r} or None, not {place!r}")
    if not os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        raise ArgumentError(f"spool {place}: no such folder; name one with room for the spool, or {MEMORY!r}")


class _Store(Protocol):
    def write(self, first: int, values: Array) -> None: ...

    def read(self, first: int, stop: int) -> Array: ...

    def free(self) -> None: ...


class MemoryStore:
    """Frames in memory, in chunks that are made when they are first written."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.chunks: dict[int, Array] = {}

    @property
    def num_bytes(self) -> int:
        """Memory that is taken."""
        return len(self.chunks) * _CHUNK_FRAMES * self._width * _ITEM_BYTES

    def write(self, first: int, values: Array) -> None:
        """Write values [n, width] at frame `first`."""
        for index, low, high in _pieces(first, first + len(values)):
            if index not in self.chunks:
                self.chunks[index] = np.zeros((_CHUNK_FRAMES, self._width), np.float32)
            start = index * _CHUNK_FRAMES
            self.chunks[index][low - start : high - start] = values[low - first : high - first]

    def read(self, first: int, stop: int) -> Array:
        """Return frames `first` to `stop`."""
        values = np.empty((stop - first, self._width), np.float32)
        for index, low, high in _pieces(first, stop):
            start = index * _CHUNK_FRAMES
            values[low - first : high - first] = self.chunks[index][low - start : high - start]
        return values

    def drop(self, stop: int) -> None:
        """Free whole chunks before frame `stop`."""
        for index in [index for index in self.chunks if (index + 1) * _CHUNK_FRAMES <= stop]:
            del self.chunks[index]

    def free(self) -> None:
        """Free the memory."""
        self.chunks.clear()


def _pieces(first: int, stop: int) -> list[tuple[int, int, int]]:
    """Cut a range of frames at the borders of chunks; return the chunk's index and the range in it."""
    return [
        (index, max(first, index * _CHUNK_FRAMES), min(stop, (index + 1) * _CHUNK_FRAMES))
        for index in range(first // _CHUNK_FRAMES, -(-stop // _CHUNK_FRAMES))
    ]


class _FileStore:
    """Frames in a file. With a path, the file stays until `free`; without, it has no name where the system allows."""

    def __init__(self, width: int, folder: Path, path: Path | None) -> None:
        self._width, self._path = width, path
        # TemporaryFile has no name on POSIX, and is removed with its last handle on Windows.
        self._file: BinaryIO = (
            tempfile.TemporaryFile(prefix="dmcodec.", dir=folder, buffering=0)  # noqa: SIM115
            if path is None
            else os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600), "r+b", 0)
        )

    def write(self, first: int, values: Array) -> None:
        self._file.seek(first * self._width * _ITEM_BYTES)
        left = memoryview(np.ascontiguousarray(values, np.float32).data).cast("B")
        while left:
            left = left[self._file.write(left) :]

    def read(self, first: int, stop: int) -> Array:
        values = np.empty((stop - first, self._width), np.float32)
        self._file.seek(first * self._width * _ITEM_BYTES)
        left = memoryview(values.data).cast("B")
        while left:
            count = self._file.readinto(left)  # type: ignore[attr-defined]
            if not count:
                raise OSError("its file was cut")
            left = left[count:]
        return values

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def free(self) -> None:
        self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()


class SpoolArray:
    """One array of a spool, [frames, width] float32. Safe to use from several threads."""

    def __init__(self, spool: Spool, width: int, store: _Store) -> None:
        self._spool, self.width, self.store = spool, width, store

    def write(self, first: int, values: Array) -> None:
        """Write values [n, width] at frame `first`.

        Raises:
            OutputError: no room.
        """
        self._spool._write(self, first, values)

    def read(self, first: int, stop: int) -> Array:
        """Return frames `first` to `stop`, which were written before."""
        return self._spool._read(self, first, stop)

    def free(self) -> None:
        """Give the room back."""
        self._spool._free(self)


class Spool:
    """Makes the arrays of one encode, and holds them until `close`.

    Args:
        place: "memory", a folder for temporary files, or None: in memory up to `MEMORY_BYTES`, else temporary files
            in the system's folder for these. What grows over that bound is moved.
        expected_bytes: the room that the clip will need; 0 where its length is not known.
        bytes_per_s: of a second of audio, for errors.
        kept: `place` is a folder whose files have names and stay after `close`.

    Raises:
        OutputError: the folder can't be written to, or has less room than `expected_bytes`.
    """

    def __init__(
        self, place: str | Path | None = None, expected_bytes: int = 0, bytes_per_s: int = 0, kept: bool = False
    ) -> None:
        self.kept = kept
        self._in_memory = place == MEMORY or (place is None and expected_bytes <= MEMORY_BYTES)
        self._bound = MEMORY_BYTES if place is None else None
        self._place = None if place is None or place == MEMORY else Path(place)
        self._expected, self._bytes_per_s = expected_bytes, bytes_per_s
        self._lock = threading.Lock()
        self._arrays: list[SpoolArray] = []
        if not self._in_memory:
            self._check_room()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _folder(self) -> Path:
        if self._place is None:
            try:
                self._place = Path(tempfile.gettempdir())
            except OSError as error:
                self._place = Path("the folder for temporary files")
                raise self._problem(error) from None
        return self._place

    def array(self, name: str, width: int) -> SpoolArray:
        """Make an array of `width` values a frame; of a kept spool, open the one of that name if it is there."""
        array = SpoolArray(self, width, MemoryStore(width) if self._in_memory else self._file_store(name, width))
        self._arrays.append(array)
        return array

    def sync(self) -> None:
        """Wait until the files are on the disk."""
        with self._lock:
            for array in self._arrays:
                if isinstance(array.store, _FileStore):
                    try:
                        array.store.sync()
                    except OSError as error:
                        raise self._problem(error) from None

    def close(self) -> None:
        """Free all arrays; the files of a kept spool stay."""
        with self._lock:
            for array in self._arrays:
                if self.kept and isinstance(array.store, _FileStore):
                    array.store.close()
                else:
                    array.store.free()
            self._arrays = []

    def _write(self, array: SpoolArray, first: int, values: Array) -> None:
        with self._lock:
            try:
                array.store.write(first, values)
            except OSError as error:
                raise self._problem(error) from None
            if self._in_memory and self._bound is not None and self._memory() > self._bound:
                self._move_to_files()

    def _read(self, array: SpoolArray, first: int, stop: int) -> Array:
        with self._lock:
            try:
                return array.store.read(first, stop)
            except OSError as error:
                raise self._problem(error) from None

    def _free(self, array: SpoolArray) -> None:
        with self._lock:
            if array in self._arrays:
                self._arrays.remove(array)
                array.store.free()

    def _memory(self) -> int:
        return sum(array.store.num_bytes for array in self._arrays if isinstance(array.store, MemoryStore))

    def _move_to_files(self) -> None:
        self._in_memory = False
        self._expected = max(self._expected, self._memory())
        self._check_room()
        for array in self._arrays:
            old = array.store
            assert isinstance(old, MemoryStore)
            store = self._file_store("", array.width)
            for index, chunk in old.chunks.items():
                try:
                    store.write(index * _CHUNK_FRAMES, chunk)
                except OSError as error:
                    store.free()
                    raise self._problem(error) from None
            array.store = store
            old.free()

    def _file_store(self, name: str, width: int) -> _FileStore:
        try:
            return _FileStore(width, self._folder, self._folder / f"{name}.f32" if self.kept else None)
        except OSError as error:
            raise self._problem(error) from None

    def _check_room(self) -> None:
        try:
            free = shutil.disk_usage(self._folder).free
            if self.kept:  # files of the interrupted encode are a part of what is needed
                free += sum(path.stat().st_size for path in self._folder.glob("*.f32"))
        except OSError as error:
            raise self._problem(error) from None
        if free < self._expected:
            raise OutputError(
                f"{self._folder}: {free} bytes are free, the spool of this clip needs {self._needed()}; "
                f"{self._advice()}"
            )

    def _problem(self, error: OSError) -> OutputError:
        return OutputError(
            f"{self._folder}: the spool of this clip, {self._needed()}, can't be kept there "
            f"({error.strerror or error}); {self._advice()}"
        )

    def _needed(self) -> str:
        rate = f"{self._bytes_per_s} bytes a second of audio"
        return f"{self._expected} bytes ({rate})" if self._expected else rate

    def _advice(self) -> str:
        if self.kept:
            return "make room, or encode to another disk"
        return 'make room, or name another folder with spool= (--spool DIR), or "memory"'
