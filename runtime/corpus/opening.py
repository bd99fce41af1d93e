"""Readers of the kinds of locations: what opens a clip's audio, and tells whether it changed since the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dmcodec.errors import AudioError
from dmcodec.streams import AudioSource

from .filesystems import is_url
from .items import FileLocation, Item, Reader, TableRow, TarMember
from .remote_files import file_state as file_state
from .remote_files import info_state as info_state
from .remote_files import opened_url as opened_url
from .remote_files import refuse_special as refuse_special
from .tables import TableReader
from .tar_members import TarReader


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


# The kinds of locations -> what makes their reader.
READERS: Mapping[type[Any], Callable[[], Reader]] = {
    FileLocation: FileReader, TarMember: TarReader, TableRow: TableReader,
}  # fmt: skip


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
