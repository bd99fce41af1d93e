"""The connection to Ray: to a cluster, or to one of our own; and what Ray tells, which must not get into our output."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO, cast

from dmcodec.cpus import usable_cpus
from dmcodec.errors import ClusterError, detail, first_line
from dmcodec.extras import require
from dmcodec.privacy import switch_off_reports

_STORE_BYTES = 128 << 20  # of a Ray of our own: only numbers and reports go through its store
OWN = "local"  # Ray's name for one that it starts here
_EXECUTOR_S, _ANSWER_S = 15.0, 10.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one here; leave a connection that is there already as it is.

    Args:
        address: as for `dmcodec.runtime.corpus.engines.ray.RayEngine`.

    Raises:
        MissingDependencyError: without Ray.
        ClusterError: no cluster is there.
    """
    switch_off_reports()
    require("--engine ray", "ray", "ray")
    address = address or os.environ.get("RAY_ADDRESS") or OWN
    _refuse_unreachable(address)
    import ray
    import ray.data

    with _quiet(ray.data.DataContext.get_current()):
        if ray.is_initialized():
            yield
            return
        _connect(address)
        try:
            yield
        finally:
            _await_executors()
            with contextlib.redirect_stdout(sys.stderr):  # messages that Ray has held back
                ray.shutdown()


def _refuse_unreachable(address: str) -> None:
    """Raise ClusterError where nothing answers at HOST:PORT; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 1 << 16):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise ClusterError(
            f"--address {address}: nothing answers there ({detail(error)}); give the address that "
            "`ray start --head` names"
        ) from None


def _connect(address: str) -> None:
    import ray

    own: dict[str, Any] = {"num_cpus": usable_cpus(), "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **(own if address == OWN else {}))
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        problems = {OWN: "Ray can't start on this machine", "auto": "no Ray cluster runs on this machine"}
        what = problems.get(address, f"--address {address}: Ray can't connect ({first_line(error)})")
        raise ClusterError(f"{what}; start a cluster with `ray start --head`, or use --engine local") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # that of Ray ends the process at once


@contextlib.contextmanager
def _quiet(context: Any) -> Iterator[None]:
    """Keep the progress of Ray Data off the terminal, and what Ray's threads print off stdout."""
    logger = logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level, sys.stdout
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)  # errors come as exceptions
    sys.stdout = cast(TextIO, _Stdout(sys.stdout))
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
        sys.stdout = before[2]


def _await_executors() -> None:
    """Wait until the threads of Ray Data have ended: one that asks Ray after its shutdown would end this process."""
    gc.collect()  # ends those of iterators that were left
    for thread in threading.enumerate():
        if thread.name.startswith("StreamingExecutor"):
            thread.join(_EXECUTOR_S)


class _Stdout:
    """Stdout, but for what the threads of Ray print: that goes to stderr, without colours."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)

    def write(self, text: str) -> int:
        """Write text, as a stream does."""
        if threading.current_thread().name.startswith("ray_"):
            return sys.stderr.write(_COLOURS.sub("", text))
        return self._stdout.write(text)
