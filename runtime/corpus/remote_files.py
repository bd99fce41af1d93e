"""Files by paths and URLs: their state, which are none, and remote ones opened for reading."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, BinaryIO, cast

from dmcodec.errors import AudioError, AudioFileNotFoundError, DmcodecError, InputNotFoundError, detail, first_line

from .filesystems import file_system, is_url

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


def refuse_special(path: str) -> None:
    """Raise AudioError for a pipe, a socket or a device: it can't be read twice, and may never end."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - many
    except (OSError, ValueError):  # shows when it is read
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise AudioError(f"{path}: is a pipe, a socket or a device; a corpus is made of files")


def opened_url(url: str) -> BinaryIO:
    """Open a remote file for reading; it can seek.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: it can't be opened.
    """
    with explained(url, "no such audio file"):
        system, inside = file_system(url)
        size = _asked(url, lambda: system.info(inside)).get("size")
        if int(size or 0) <= FETCHED_BYTES:
            return io.BytesIO(_asked(url, lambda: system.cat_file(inside)))
        return cast(BinaryIO, _asked(url, lambda: system.open(inside, "rb")))


def opened_part(url: str, start: int, size: int) -> tuple[BinaryIO, int]:
    """Open a remote file for reading a part of it; return it, and where in it the part begins.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: it can't be opened.
    """
    with explained(url, "no such file"):
        system, inside = file_system(url)
        if size <= FETCHED_BYTES:
            return io.BytesIO(_asked(url, lambda: system.cat_file(inside, start=start, end=start + size))), 0
        return cast(BinaryIO, _asked(url, lambda: system.open(inside, "rb"))), start


@contextmanager
def explained(name: str, missing: str) -> Iterator[None]:
    """Turn an OSError into an AudioError that names the file; `missing` is what one that isn't there is."""
    try:
        yield
    except InputNotFoundError as error:
        raise AudioFileNotFoundError(first_line(error)) from error
    except DmcodecError:  # some are OSErrors, too
        raise
    except FileNotFoundError:
        raise AudioFileNotFoundError(f"{name}: {missing}") from None
    except OSError as error:
        raise AudioError(f"{name}: can't be read ({detail(error)})") from None
