"""Text as editors of all systems write it: UTF-8 with or without a byte-order mark, or UTF-16 with one."""

from __future__ import annotations

import codecs
from pathlib import Path

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as the mark of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode_text(data: bytes) -> str:
    """Return the text of a file, without its byte-order mark; UnicodeDecodeError where it is no such text."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    return data.decode(encoding)


def read_text(path: Path) -> str:
    """Return the text of the file `path`; OSError or UnicodeDecodeError where it can't be read."""
    return decode_text(path.read_bytes())
