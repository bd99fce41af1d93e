"""Inputs that can be read once only: stdin and pipes."""

from __future__ import annotations

import sys
from pathlib import Path

from dmcodec.errors import ArgumentError
from dmcodec.file_search import STDIN
from dmcodec.files import is_special
from dmcodec.streams import AudioSource


def from_pipe(source: Path) -> bool:
    """Return whether a source is stdin, or a pipe, which can be read once only."""
    return str(source) == STDIN or is_special(source)


def shown(source: Path) -> str:
    """Return the name of a source in messages."""
    return "stdin" if str(source) == STDIN else str(source)


def stream_of(source: Path) -> AudioSource:
    """Return what a source is read from: its path, or for "-" the stream stdin.

    Raises:
        ArgumentError: stdin is closed.
    """
    if str(source) != STDIN:
        return source
    if sys.stdin is None:
        raise ArgumentError("- is stdin, which is closed; name a file")
    return sys.stdin.buffer
