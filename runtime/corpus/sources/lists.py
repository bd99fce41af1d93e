"""Lists: text files with the name of one audio file in each line."""

from __future__ import annotations

from collections.abc import Iterator

from dmcodec.runtime.corpus.items import Item
from dmcodec.text import utf8

from .text import file_item, named_beside, numbered_lines


class ListSource:
    """A list of audio files: paths, relative to the folder of the list, and URLs. The id is the line as written."""

    def __init__(self, path: str) -> None:
        self._path = path

    def items(self) -> Iterator[Item]:
        """See `dmcodec.runtime.corpus.items.Source`."""
        for _, line in numbered_lines(self._path):
            name = line.strip()
            yield file_item(named_beside(self._path, name), utf8(name))
