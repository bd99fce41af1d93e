"""Readers of the kinds of locations: what opens a clip's audio, and tells whether it changed since the plan."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from dmcodec.errors import AudioError, AudioFileNotFoundError, detail
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
    info = system.info(inside)
    mark = next((info[name] for name in _MARKS if info.get(name) is not None), "")
    size = int(info.get("size") or 0)
    return f"{size} {mark}".strip(), size


class FileReader:
    """Opens files of their own: local ones by their path, remote ones through fsspec."""

    @contextmanager
    def opened(self, location: FileLocation) -> Iterator[AudioSource]:
        """See `Reader`."""
        path = location.path
        if not is_url(path):
            yield path
            return
        with opened_url(path) as file:
            yield file

    def state(self, location: FileLocation) -> str:
        """See `Reader`."""
        return file_state(location.path)[0]

    def close(self) -> None:
        """See `Reader`."""


@contextmanager
def opened_url(url: str) -> Iterator[BinaryIO]:
    """Open a remote file for reading.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: it can't be read.
    """
    try:
        system, inside = file_system(url)
        if int(system.info(inside).get("size") or 0) <= FETCHED_BYTES:
            yield io.BytesIO(system.cat_file(inside))
        else:
            with system.open(inside, "rb") as file:
                yield cast(BinaryIO, file)
    except FileNotFoundError:
        raise AudioFileNotFoundError(f"{url}: no such audio file") from None
    except OSError as error:
        raise AudioError(f"{url}: can't be read ({detail(error)})") from None


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
