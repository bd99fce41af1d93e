"""Which source reads an argument: folders, globs and files; lists; manifests; remote files; containers; datasets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dmcodec.audio import audio_suffixes
from dmcodec.errors import ArgumentError
from dmcodec.file_search import STDIN, LeftOut
from dmcodec.hugging_face import HF_PREFIX, is_saved_dataset
from dmcodec.runtime.corpus.filesystems import is_url
from dmcodec.runtime.corpus.items import Item, Source

from .containers import CONTAINERS, ContainersSource, TableOptions, is_container, suffix_of
from .datasets import DatasetSource
from .files import FilesSource
from .lists import ListSource
from .manifests import JsonLinesSource, TsvSource
from .remote import RemoteSource

# Suffix of a file -> what makes its source from the argument.
BY_SUFFIX: Mapping[str, Callable[[str], Source]] = {
    ".txt": ListSource, ".lst": ListSource, ".list": ListSource, ".tsv": TsvSource, ".jsonl": JsonLinesSource,
    ".ndjson": JsonLinesSource,
}  # fmt: skip


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


def find_corpus(inputs: Sequence[str], tables: TableOptions | None = None) -> Corpus:
    """Return the sources that arguments name.

    Local audio files, folders and patterns make one source, which comes first; then all Parquet files and tars; then
    the others in their order. A folder without audio files stands for the Parquet files and tars below it, or for the
    Hugging Face dataset that was saved there.

    Raises:
        InputNotFoundError: a file, a folder or a pattern that names nothing.
        ArgumentError: stdin.
    """
    tables = tables or TableOptions()
    sources: list[Source] = []
    paths: list[str] = []
    containers: list[str] = []
    for argument in inputs:
        if argument == STDIN:
            raise ArgumentError(
                "-: stdin can be read once only, but a corpus is read again when a run goes on; name a list"
            )
        make = _special(argument)
        if argument.startswith(HF_PREFIX) or is_saved_dataset(argument):
            sources.append(DatasetSource(argument, tables.split, tables.audio_column))
        elif is_container(argument) or _holds_containers(argument):
            containers.append(argument)
        elif make is not None:
            sources.append(make(argument))
        else:
            paths.append(argument)
    files = [FilesSource(paths)] if paths else []
    held = [ContainersSource(containers, tables)] if containers else []
    return Corpus(inputs, [*files, *held, *sources], [each for source in files for each in source.left_out])


def _holds_containers(folder: str) -> bool:
    """Return whether there are Parquet files or tars below a local folder, and no audio files."""
    audio, found = audio_suffixes(), False
    for _, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        suffixes = {suffix_of(name) for name in names if not name.startswith(".")}
        if suffixes & audio:
            return False
        found = found or bool(suffixes & CONTAINERS.keys())
    return found


def _special(argument: str) -> Callable[[str], Source] | None:
    """Return what makes the source of an argument; None for local audio: a file, a folder or a pattern."""
    if os.path.isdir(argument):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return None
    return BY_SUFFIX.get(PurePosixPath(argument).suffix.lower(), RemoteSource if is_url(argument) else None)
