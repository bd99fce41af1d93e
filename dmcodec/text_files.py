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


def encoding_of(head: bytes) -> str:
    """Return the name of a text's encoding, from its first 4 bytes."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


def decode_text(data: bytes) -> str:
    """Return the text of a file, without its byte-order mark; UnicodeDecodeError where it is no such text."""
    return data.decode(encoding_of(data[:4]))


def read_text(path: Path) -> str:
    """Return the text of the file `path`; OSError or UnicodeDecodeError where it can't be read."""
    return decode_text(path.read_bytes())
