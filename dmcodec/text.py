"""Names of files and sizes as text: any name fits into one line, and into UTF-8."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def utf8(name: str | PurePath) -> str:
    r"""Return a name as text that UTF-8 holds: bytes of the name that are no UTF-8 become `\xe9`.

    Python holds such bytes as surrogates, which no UTF-8 file and no Parquet table takes.
    """
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def one_line(text: str) -> str:
    r"""Return text without control characters: a line break, which a file's name may hold, becomes `\n`."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def size_text(size_bytes: float) -> str:
    """Return a size in the decimal unit that fits: `812 B`, `3.4 kB`, `12.0 MB`, `8.9 GB`."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size_bytes /= 1000
        if size_bytes < 999.95 or unit == "GB":
            break
    return f"{size_bytes:.1f} {unit}"
