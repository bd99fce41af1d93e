"""Local audio that arguments name: files, folders and glob patterns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dmcodec.audio_sources import NamedFiles, named_files
from dmcodec.file_search import LeftOut
from dmcodec.runtime.corpus.items import Item

from .text import file_item


class FilesSource:
    """Files, folders and glob patterns, as all verbs find them, sorted by their paths.

    The id is the path from the common folder of all arguments on, so it does not depend on where the corpus lies.

    Raises:
        InputNotFoundError: an argument names nothing, or a folder can't be read.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._files: NamedFiles = named_files(arguments, keep_missing=True)
        for problem in self._files.problems:
            raise problem.error

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """What of the named folders does not count."""
        return self._files.left_out

    def items(self) -> Iterator[Item]:
        """See `dmcodec.runtime.corpus.items.Source`."""
        for path, name in self._files.files:
            yield file_item(str(path), name)
