"""Audio on file systems that fsspec opens: a file, a folder, or a glob pattern, as a URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from dmcodec.audio import audio_suffixes
from dmcodec.errors import InputNotFoundError, first_line
from dmcodec.runtime.corpus.filesystems import file_system
from dmcodec.runtime.corpus.items import FileLocation, Item
from dmcodec.runtime.corpus.opening import info_state
from dmcodec.text import utf8


class RemoteSource:
    """A URL. A folder stands for all audio files below it that are not hidden; the id is the path below the folder."""

    def __init__(self, url: str) -> None:
        self._url = url

    def items(self) -> Iterator[Item]:
        """See `dmcodec.runtime.corpus.items.Source`."""
        system, root = file_system(self._url)
        for name, info in sorted(self._found(system, root).items()):
            state, size_bytes = info_state(info)
            location = FileLocation(system.unstrip_protocol(info["name"]))
            yield Item(utf8(name), location, state=state, size_bytes=size_bytes)

    def _found(self, system: Any, root: str) -> dict[str, Any]:
        """Return the names of the files, and what the file system tells of each.

        Raises:
            InputNotFoundError: there are none, or they can't be listed.
        """
        try:
            if system.isfile(root):
                return {PurePosixPath(root).name: system.info(root)}
            if system.isdir(root):
                infos = {str(PurePosixPath(path).relative_to(root)): info for path, info in _all(system.find, root)}
                found = {name: info for name, info in infos.items() if _counts(name)}
            else:
                found = {path.lstrip("/"): info for path, info in _all(system.glob, root) if info["type"] == "file"}
        except Exception as error:
            raise InputNotFoundError(f"{self._url}: can't be listed ({first_line(error)})") from error
        if not found:
            raise InputNotFoundError(f"{self._url}: no such file, and no audio files below it or matching it")
        return found


def _all(search: Any, path: str) -> list[tuple[str, Any]]:
    found: dict[str, Any] = search(path, detail=True)
    return [(name, {**info, "name": name}) for name, info in found.items()]


def _counts(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in audio_suffixes() and not any(part.startswith(".") for part in path.parts)
