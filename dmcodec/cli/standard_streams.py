"""The standard streams: every text can be written to them, whatever their encoding, and errors of writing are told."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

from dmcodec.errors import OutputError

_HANDLER = "dmcodec.plain"
_PLAIN = {
    "→": "->", "←": "<-", "↑": "^", "↓": "v", "…": "...", "–": "-", "—": "-", "‑": "-", "“": '"', "”": '"', "‘": "'",
    "’": "'", "×": "x", "±": "+-", "µ": "u", "≤": "<=", "≥": ">=", "≈": "~", "−": "-", "•": "*", "·": ".", "°": "deg",
}  # fmt: skip


@contextlib.contextmanager
def prepared_streams() -> Iterator[None]:
    """Let stdout and stderr take every text within the block; an error of writing stdout is an OutputError.

    The bytes of names that are no UTF-8 are written as they are. Characters that the encoding lacks become plain ones:
    an arrow becomes `->`, and lines of tables become `-` and `|`; others are escaped.
    """
    codecs.register_error(_HANDLER, _replaced)
    stdout, stderr = sys.stdout, sys.stderr
    try:
        if isinstance(stderr, io.TextIOWrapper):
            stderr.reconfigure(errors=_HANDLER)
            sys.stderr = _wrapper(stderr.buffer, stderr) if _is_ascii(stderr) else stderr
        if isinstance(stdout, io.TextIOWrapper):
            sys.stdout = _told(stdout)
        yield
    finally:
        if isinstance(sys.stderr, _Ascii):
            sys.stderr.detach()  # stderr has the same buffer
        sys.stdout, sys.stderr = stdout, stderr


def _told(stdout: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a stream like stdout whose errors of writing are told."""
    stdout.reconfigure(errors=_HANDLER)
    try:
        handle = stdout.fileno()
    except OSError:  # the stream of a test
        return stdout
    if stdout.isatty():
        return stdout
    stdout.flush()
    return _wrapper(io.BufferedWriter(_Stdout(handle, "wb", closefd=False)), stdout)


def _is_ascii(stream: io.TextIOWrapper) -> bool:
    return codecs.lookup(stream.encoding).name == "ascii"


def _wrapper(raw: BinaryIO, stream: io.TextIOWrapper) -> io.TextIOWrapper:
    kind = _Ascii if _is_ascii(stream) else io.TextIOWrapper
    return kind(raw, stream.encoding, _HANDLER, line_buffering=stream.line_buffering)


class _Ascii(io.TextIOWrapper):
    """A stream of ASCII under another name: click writes UTF-8 to what calls itself ASCII."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The name."""
        return "plain-ascii"


class _Stdout(io.FileIO):
    """Stdout, whose errors name it."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            _silence(self.fileno())
            if isinstance(error, BrokenPipeError):
                reason = "its reader has ended; read all of it, or write to a file"
            else:
                reason = f"{error.strerror or error}; check the disk and the rights"
            raise OutputError(f"stdout: can't be written ({reason})") from error


def _silence(handle: int) -> None:
    """Lead stdout nowhere: what is buffered for it can't be written, and must not be tried again at the end."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, handle)
        os.close(null)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    if all("\udc80" <= each <= "\udcff" for each in found):
        return bytes(ord(each) & 0xFF for each in found), error.end
    return "".join(map(_plain, found)), error.end


def _plain(character: str) -> str:
    if "\u2500" <= character <= "\u257f":  # box drawing
        return {"\u2500": "-", "\u2501": "-", "\u2550": "-", "\u2502": "|", "\u2503": "|", "\u2551": "|"}.get(
            character, "+"
        )
    if "\ud800" <= character <= "\udfff":
        return "?"
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode()
