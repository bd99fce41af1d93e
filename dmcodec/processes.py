"""Processes that share the work: how they are started, and which signals reach them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any


def start_process(work: Callable[..., None], *arguments: Any) -> tuple[SpawnProcess, Connection]:
    """Start work(connection, *arguments) in a new process; return the process, and our end of the connection.

    The process begins with Ctrl-C blocked: it calls `leave_interrupts_to_parent` first.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of onnxruntime hold
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
    with _interrupts_blocked():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let a process that is started begin with Ctrl-C blocked; a Ctrl-C meanwhile comes afterwards."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_interrupts_to_parent() -> None:
    """In a started process, leave Ctrl-C to the process that started it; unwind at the other signals."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    ended = False

    def unwind(number: int, _frame: Any) -> None:
        nonlocal ended
        if not ended:
            ended = True
            sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, unwind)


def end_with_parent() -> None:
    """In a started process, end it at once where the process that started it is killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
