"""Files that hold many clips: which ones arguments name, and what lists the clips of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dmcodec.errors import DmcodecError, InputNotFoundError, first_line
from dmcodec.file_search import search
from dmcodec.runtime.corpus.filesystems import file_system, is_url
from dmcodec.runtime.corpus.items import Item, Source
from dmcodec.text import utf8

from .parquet import ParquetSource
from .tar import TarSource


@dataclass(frozen=True)
class TableOptions:
    """What is read of tables.

    Attributes:
        split: of Hugging Face datasets.
        audio_column: of datasets and Parquet files; None where there is only one, or one called `audio`.
    """

    split: str = "train"
    audio_column: str | None = None


def _tar(path: str, name: str, _options: TableOptions) -> Source:
    return TarSource(path, name)


def _parquet(path: str, name: str, options: TableOptions) -> Source:
    return ParquetSource(path, name, options.audio_column)


# Suffix -> what makes the source of a file, from its path, its name in ids, and the options.
CONTAINERS: Mapping[str, Callable[[str, str, TableOptions], Source]] = {".tar": _tar, ".parquet": _parquet}
_COMPRESSED_TARS = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")


class ContainersSource:
    """Parquet files and tars, as files, folders, glob patterns or URLs, sorted by their paths.

    The name of a file in ids is its path from the common folder of all of them on.

    Raises:
        InputNotFoundError: an argument names no such file, or a folder can't be read.
    """

    def __init__(self, arguments: Sequence[str], options: TableOptions) -> None:
        self._options = options
        self._files = _local([each for each in arguments if not is_url(each)])
        for url in arguments:
            if is_url(url):
                self._files += _remote(url)

    def items(self) -> Iterator[Item]:
        """See `dmcodec.runtime.corpus.items.Source`."""
        for path, name in self._files:
            yield from CONTAINERS[suffix_of(path)](path, name, self._options).items()


def is_container(argument: str) -> bool:
    """Return whether an argument names Parquet files or tars: a file, a pattern or a URL."""
    return suffix_of(argument) in CONTAINERS


def suffix_of(path: str) -> str:
    """Return the suffix of a file, in lower case; that of a compressed tar is `.tar`, and its source refuses it."""
    if path.lower().endswith(_COMPRESSED_TARS):
        return ".tar"
    return PurePosixPath(path).suffix.lower()


def _local(arguments: Sequence[str]) -> list[tuple[str, str]]:
    found = [(file.path.absolute(), file.relative) for file in search(arguments, frozenset(CONTAINERS)).only()]
    if not found:
        return []
    root = Path(os.path.commonpath({path.parents[len(relative.parts) - 1] for path, relative in found}))
    paths = sorted({path for path, _ in found if suffix_of(str(path)) in CONTAINERS})
    return [(str(path), utf8(path.relative_to(root).as_posix())) for path in paths]


def _remote(url: str) -> list[tuple[str, str]]:
    system, root = file_system(url)
    try:
        if system.isdir(root):
            names = [(path, str(PurePosixPath(path).relative_to(root))) for path in system.find(root)]
        elif system.exists(root):
            names = [(root, PurePosixPath(root).name)]
        else:
            names = [(path, path.lstrip("/")) for path in system.glob(root)]
    except DmcodecError:
        raise
    except Exception as error:
        raise InputNotFoundError(f"{url}: can't be listed ({first_line(error)})") from error
    found = [(system.unstrip_protocol(path), utf8(name)) for path, name in names if suffix_of(path) in CONTAINERS]
    if not found:
        raise InputNotFoundError(f"{url}: no such file, and no Parquet files or tars below it or matching it")
    return sorted(found)
