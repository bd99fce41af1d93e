"""Text files of a corpus, local or remote: read line by line, whatever their encoding."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from dmcodec.errors import DataError, InputNotFoundError, detail
from dmcodec.runtime.corpus.filesystems import file_system, is_url
from dmcodec.runtime.corpus.items import FileLocation, Item
from dmcodec.runtime.corpus.opening import file_state
from dmcodec.text_files import encoding_of


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines of a file that are not blank.

    Bytes that are no UTF-8 are kept as surrogates, as Python keeps them in names of files.

    Raises:
        InputNotFoundError: the file does not exist or can't be read.
        DataError: it is no text.
    """
    with _explained(path), _opened(path) as file:
        encoding = encoding_of(file.read(4))
        file.seek(0)
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        with io.TextIOWrapper(file, encoding, errors) as text:
            for number, line in enumerate(text, start=1):
                if "\0" in line:
                    raise DataError(f"{path}: line {number} holds a zero byte; it is no text")
                if line.strip():
                    yield number, line.rstrip("\r\n")


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such file") from None
    except UnicodeError as error:
        raise DataError(f"{path}: can't be read as text ({detail(error)})") from None
    except OSError as error:
        if isinstance(error, InputNotFoundError):
            raise
        raise InputNotFoundError(f"{path}: can't be read ({detail(error)})") from None


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if is_url(path):
        system, inside = file_system(path)
        with system.open(inside, "rb") as file:
            yield cast(BinaryIO, file)
    else:
        with open(path, "rb") as file:
            yield file


def named_beside(table: str, name: str) -> str:
    """Return the place of an audio file that a list or a manifest names: relative names start at the table's folder."""
    if is_url(name):
        return name
    if is_url(table):
        return name if name.startswith("/") else f"{table.rpartition('/')[0]}/{PurePosixPath(name)}"
    return str(Path(table).absolute().parent / name)


def file_item(path: str, key: str) -> Item:
    """Return the clip that is a whole file. One that is not there fails when it is read."""
    try:
        state, size_bytes = file_state(path)
    except (OSError, ValueError):
        return Item(key, FileLocation(path))
    return Item(key, FileLocation(path), state=state, size_bytes=size_bytes)
