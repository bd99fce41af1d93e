"""Signals that end a command: each unwinds it once, as Ctrl-C does, so that no temporary file is left."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextlib.contextmanager
def unwinding_signals() -> Iterator[None]:
    """Turn the first of SIGINT, SIGTERM and SIGHUP into an exception within the block; further ones are ignored.

    SIGINT becomes a KeyboardInterrupt, the others a SystemExit of 128 + their number. Signals that are ignored (by
    nohup, or by a shell that started the command in the background) stay so. The handlers are restored at the end, but
    after such a signal: the process ends then, and a second signal must not change how.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    ended = False

    def unwind(number: int, _frame: FrameType | None) -> None:
        nonlocal ended
        if ended:  # what was begun cleans up
            return
        ended = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
        if signal.getsignal(number) not in (signal.SIG_IGN, None):
            before[number] = signal.signal(number, unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ended else handler)
