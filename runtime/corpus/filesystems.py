"""Remote files, through fsspec: which names are URLs, and the file system of each."""

from __future__ import annotations

import re
from typing import Any

from dmcodec.errors import ArgumentError, InputNotFoundError, first_line
from dmcodec.extras import missing_package

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")


def is_url(path: str) -> bool:
    """Return whether a name is a URL such as `s3://bucket/a.wav`, and not a path."""
    return _URL.match(path) is not None


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it.

    Raises:
        MissingDependencyError: fsspec is not installed.
        ArgumentError: the protocol is not known, or its package is not installed.
        InputNotFoundError: the file system can't be reached, or refuses.
    """
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise missing_package(error, url, "corpus") from None
    try:
        system, path = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ArgumentError(f"{url}: fsspec can't open it ({first_line(error)})") from None
    except Exception as error:
        raise InputNotFoundError(f"{url}: can't be reached ({first_line(error)})") from error
    return system, path
