"""Files by paths and URLs: their state, and remote ones opened for reading."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from dmcodec.errors import AudioError, AudioFileNotFoundError, DmcodecError, detail

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
    info = system.info(inside)
    mark = next((info[name] for name in _MARKS if info.get(name) is not None), "")
    size = int(info.get("size") or 0)
    return f"{size} {mark}".strip(), size


def opened_url(url: str) -> BinaryIO:
    """Open a remote file for reading; it can seek.

    Raises:
        AudioFileNotFoundError: no such file.
        AudioError: it can't be opened.
    """
    with explained(url, "no such audio file"):
        system, inside = file_system(url)
        if int(system.info(inside).get("size") or 0) <= FETCHED_BYTES:
            return io.BytesIO(system.cat_file(inside))
        return cast(BinaryIO, system.open(inside, "rb"))


@contextmanager
def explained(name: str, missing: str) -> Iterator[None]:
    """Turn an OSError into an AudioError that names the file; `missing` is what one that isn't there is."""
    try:
        yield
    except DmcodecError:  # some are OSErrors, too
        raise
    except FileNotFoundError:
        raise AudioFileNotFoundError(f"{name}: {missing}") from None
    except OSError as error:
        raise AudioError(f"{name}: can't be read ({detail(error)})") from None
