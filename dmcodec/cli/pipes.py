"""Inputs that can be read once only: stdin and pipes."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dmcodec.file_search import STDIN
from dmcodec.files import is_special


def from_pipe(source: Path) -> bool:
    """Return whether a source is stdin, or a pipe, which can be read once only."""
    return str(source) == STDIN or is_special(source)


@contextlib.contextmanager
def opened_source(source: Path) -> Iterator[Path]:
    """Yield the path of a source; what comes from a pipe is copied to a temporary file."""
    if not from_pipe(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="dmcodec.") as folder:
        copy = Path(folder, "stdin")
        with contextlib.ExitStack() as stack, copy.open("wb") as target:
            stream: BinaryIO = sys.stdin.buffer if str(source) == STDIN else stack.enter_context(source.open("rb"))
            shutil.copyfileobj(stream, target)
        yield copy
