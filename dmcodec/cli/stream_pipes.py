"""stdin and stdout of the verbs that stream: bytes as they come in, and out at once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from dmcodec.errors import ArgumentError


def piped(reads: str, writes: str) -> tuple[BinaryIO, BinaryIO]:
    """Return stdin and stdout as files of bytes; `reads` and `writes` say what of, for errors.

    Raises:
        ArgumentError: one of them is closed or a terminal.
    """
    if sys.stdin is None or sys.stdout is None:
        raise ArgumentError("--stream reads stdin and writes stdout, and one of them is closed")
    if sys.stdin.isatty():
        raise ArgumentError(f"--stream reads {reads} from stdin, which is a terminal; redirect it (< FILE, or a pipe)")
    if sys.stdout.isatty():
        raise ArgumentError(f"--stream writes {writes} to stdout, which is a terminal; redirect it (> FILE, or a pipe)")
    return sys.stdin.buffer, sys.stdout.buffer


class Rejoined:
    """A file whose first bytes were read already.

    Args:
        head: these bytes.
        file: the file after them.
    """

    def __init__(self, head: bytes, file: BinaryIO) -> None:
        self._head, self._file = head, file

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        head = self._taken(size)
        return head + self._file.read(size - len(head)) if len(head) < size else head

    def read1(self, size: int) -> bytes:
        """Return at most `size` bytes as soon as there are any; nothing only at the end."""
        return self._taken(size) or available(self._file, size)

    def _taken(self, size: int) -> bytes:
        taken, self._head = self._head[:size], self._head[size:]
        return taken


def available(source: BinaryIO, size: int) -> bytes:
    """Return at most `size` bytes as soon as there are any; nothing only at the end."""
    read: bytes = source.read1(size)  # type: ignore[attr-defined]
    return read


@contextmanager
def ended_by_interrupt(read: Callable[[], bytes]) -> Iterator[Iterator[bytes]]:
    """Yield what `read` returns until it returns nothing, or until Ctrl-C.

    The first Ctrl-C ends the iteration and interrupts nothing else; the second one raises KeyboardInterrupt.
    """
    interrupt = _Interrupt()
    previous = signal.getsignal(signal.SIGINT)
    # A process in the background of a shell ignores Ctrl-C, and must go on to do so.
    ignored = previous in (signal.SIG_IGN, None)
    handles = not ignored and threading.current_thread() is threading.main_thread()
    if handles:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt.chunks(read)
    finally:
        if handles:
            signal.signal(signal.SIGINT, previous)


class _Interrupt:
    def __init__(self) -> None:
        self._came = self._is_reading = False

    def __call__(self, _number: int, _frame: Any) -> None:
        if self._came or self._is_reading:
            self._came = True
            raise KeyboardInterrupt
        self._came = True

    def chunks(self, read: Callable[[], bytes]) -> Iterator[bytes]:
        while not self._came:
            try:
                self._is_reading = True
                data = read()
                self._is_reading = False
            except KeyboardInterrupt:
                self._is_reading = False
                return
            if not data:
                return
            yield data
