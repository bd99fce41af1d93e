"""Readers of the kinds of locations: what opens a clip's audio, and tells whether it changed since the plan."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, BinaryIO, cast

from dmcodec.errors import AudioError, AudioFileNotFoundError, InputNotFoundError, detail, first_line
from dmcodec.streams import AudioSource

from .filesystems import file_system, is_url
from .items import FileLocation, Item, Reader

# Remote files up to this size are fetched whole, before they are decoded; larger ones are read in parts.
FETCHED_BYTES = 64 << 20
# What a remote file system tells of a file that changes when its content does; the first that is there is taken.
_MARKS = ("ETag", "etag", "md5Hash", "md5", "mtime", "LastModified", "last_modified", "modified", "updated", "created")


def file_state(path: str) -> tuple[str, int]:
    """Return the state of a file (`Item.state`) and its bytes.

    Raises:
        OSError: the file is not there, or can't be asked for.
    """
    if not is_url(path):
        status = os.stat(path)  # noqa: PTH116 - many
        return f"{status.st_size} {status.st_mtime_ns}", status.st_size
    system, inside = file_system(path)
    return info_state(_asked(path, lambda: system.info(inside)))


def info_state(info: Mapping[str, Any]) -> tuple[str, int]:
    """Return the state of a remote file and its bytes, from what its file system tells of it."""
    mark = next((info[name] for name in _MARKS if info.get(name) is not None), "")
    if isinstance(mark, datetime):  # some file systems list files with a number of seconds, and show one with a date
        mark = mark.timestamp()
    if isinstance(mark, float):
        mark = f"{mark:.6f}"
    size = int(info.get("size") or 0)
    return f"{size} {mark}".strip(), size


def _asked(url: str, ask: Callable[[], Any]) -> Any:
    """Return what a remote file system answers; its own kinds of errors become an OSError that names the URL."""
    try:
        return ask()
    except OSError:
        raise
    except Exception as error:
        raise InputNotFoundError(f"{url}: can't be reached ({first_line(error)})") from error


class FileReader:
    """Opens files of their own: local ones by their path, remote ones through fsspec."""

    @contextmanager
    def opened(self, location: FileLocation) -> Iterator[AudioSource]:
        """See `Reader`."""
        path = location.path
        if not is_url(path):
            refuse_special(path)
            yield path
            return
        with opened_url(path) as file:
            yield file

    def state(self, location: FileLocation) -> str:
        """See `Reader`."""
        return file_state(location.path)[0]

    def close(self) -> None:
        """See `Reader`."""


def refuse_special(path: str) -> None:
    """Raise AudioError for a pipe, a socket or a device: it can't be read twice, and may never end."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - many
    except (OSError, ValueError):  # shows when it is read
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise AudioError(f"{path}: is a pipe, a socket or a device; a corpus is made of files")


@contextmanager
def opened_url(url: str) -> Iterator[BinaryIO]:
    """Open a remote file for reading.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: it can't be read.
    """
    try:
        system, inside = file_system(url)
        size = _asked(url, lambda: system.info(inside)).get("size")
        if int(size or 0) <= FETCHED_BYTES:
            file = io.BytesIO(_asked(url, lambda: system.cat_file(inside)))
        else:
            file = _asked(url, lambda: system.open(inside, "rb"))
    except FileNotFoundError as error:
        problem = first_line(error) if isinstance(error, InputNotFoundError) else f"{url}: no such audio file"
        raise AudioFileNotFoundError(problem) from None
    except OSError as error:
        raise AudioError(f"{url}: can't be read ({detail(error)})") from None
    with file:
        yield cast(BinaryIO, file)


# The kinds of locations -> what makes their reader.
READERS: Mapping[type[Any], Callable[[], Reader]] = {FileLocation: FileReader}


class Readers:
    """The readers of a shard, each made when it is first needed."""

    def __init__(self) -> None:
        self._made: dict[type[Any], Reader] = {kind: make() for kind, make in READERS.items()}

    def opened(self, item: Item) -> Any:
        """Return a context manager with the audio that an item is in, or part of."""
        return self._made[type(item.location)].opened(item.location)

    def refuse_changed(self, item: Item) -> None:
        """Raise AudioError where the source is another one than when the plan was made."""
        try:
            state = self._made[type(item.location)].state(item.location)
        except OSError:
            state = ""  # what is wrong shows when it is opened
        if item.state and state and state != item.state:
            raise AudioError(f"{item.source}: was changed after the plan was made; put the old one back, or plan again")

    def close(self) -> None:
        """Release open files."""
        for reader in self._made.values():
            reader.close()
