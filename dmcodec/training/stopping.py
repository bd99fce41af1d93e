"""Ends of a training run from outside: a signal asks for a checkpoint after the present step."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

# Ctrl-C, the end of a terminal, and what Slurm, Grid Engine and other schedulers send before they kill a job.
SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if name in signal.Signals.__members__
)


class StopSignals:
    """A context in which `SIGNALS` are noted instead of ending the process.

    Schedulers send several of them before they kill. Only a second Ctrl-C ends the process at once. Signals that the
    process ignores already (by nohup, for example) stay ignored.

    Attributes:
        received: the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Return whether a signal came."""
        return self.received is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python allows it only there
            noted = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in noted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in list(self._before):
            self._restore(number)

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as shells have it; 0 without a signal."""
        return 0 if self.received is None else 128 + int(self.received)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)
        if number == signal.SIGINT:
            self._restore(signal.SIGINT)

    def _restore(self, number: signal.Signals) -> None:
        handler = self._before.pop(number, None)
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def ignore_stop_signals(_worker: int = 0) -> None:
    """Ignore `SIGNALS`, in processes that load data: a scheduler sends them to all processes of a job."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
