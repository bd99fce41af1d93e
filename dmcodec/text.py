"""Names of files as text: any name fits into one line, and into UTF-8."""

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
