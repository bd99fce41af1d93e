"""Which source reads an argument: folders, globs and files; lists; manifests; remote files; containers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dmcodec.file_search import LeftOut
from dmcodec.runtime.corpus.filesystems import is_url
from dmcodec.runtime.corpus.items import Item, Source

from .files import FilesSource
from .lists import ListSource
from .manifests import JsonLinesSource, TsvSource
from .remote import RemoteSource

# Suffix of a file, or prefix of an argument -> what makes its source from the argument.
BY_SUFFIX: Mapping[str, Callable[[str], Source]] = {
    ".txt": ListSource, ".lst": ListSource, ".list": ListSource, ".tsv": TsvSource, ".jsonl": JsonLinesSource,
    ".ndjson": JsonLinesSource,
}  # fmt: skip
BY_PREFIX: Mapping[str, Callable[[str], Source]] = {}


@dataclass(frozen=True)
class Corpus:
    """The arguments that name a corpus, its sources in order, and what of the named folders does not count."""

    inputs: Sequence[str]
    sources: Sequence[Source] = field(default=())
    left_out: Sequence[LeftOut] = field(default=())

    def items(self) -> Iterator[Item]:
        """List the clips of all sources; see `Source.items`."""
        for source in self.sources:
            yield from source.items()


def find_corpus(inputs: Sequence[str]) -> Corpus:
    """Return the sources that arguments name. Local files, folders and patterns make one source, which comes first.

    Raises:
        InputNotFoundError: a file, a folder or a pattern that names nothing.
    """
    sources: list[Source] = []
    paths: list[str] = []
    for argument in inputs:
        make = _special(argument)
        if make is not None:
            sources.append(make(argument))
        else:
            paths.append(argument)
    files = [FilesSource(paths)] if paths else []
    return Corpus(inputs, [*files, *sources], [each for source in files for each in source.left_out])


def _special(argument: str) -> Callable[[str], Source] | None:
    """Return what makes the source of an argument; None for local audio: a file, a folder or a pattern."""
    for prefix, make in BY_PREFIX.items():
        if argument.startswith(prefix):
            return make
    if os.path.isdir(argument):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return None
    return BY_SUFFIX.get(PurePosixPath(argument).suffix.lower(), RemoteSource if is_url(argument) else None)
