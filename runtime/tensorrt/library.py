"""TensorRT 10, TensorRT 11 and TensorRT for RTX as one library: found, told apart, and called with errors.

Every call to any of them goes through `dmcodec.tensorrt`: this module, `builder` and `engine`. They share one API; what
differs is asked for by name. A call that fails gives None, False or a negative number, and the reason only to the
logger: `Library.checked` turns that into an error that carries the logger's lines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from dmcodec.errors import ArgumentError, DmcodecError, MissingDependencyError

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
FLAVOURS = (TENSORRT, TENSORRT_RTX)
OLDEST = {TENSORRT: (10, 13), TENSORRT_RTX: (1, 4)}
NEWEST = {TENSORRT: (11,), TENSORRT_RTX: (1,)}  # major versions that are known
_MODULES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt_rtx"}
_INSTALL = {
    TENSORRT: '`pip install "dmcodec[trt]"` (from the NVIDIA package index)',
    TENSORRT_RTX: '`pip install "dmcodec[trt-rtx]"`',
}
_MESSAGE_LINES = 6

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class LogLine:
    """A line of TensorRT's logger; `severity` is its name: VERBOSE, INFO, WARNING, ERROR, INTERNAL_ERROR."""

    severity: str
    text: str


class Log:
    """Hands TensorRT's lines to whoever records at the time. A process has one for each library."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recordings: list[list[LogLine]] = []

    def write(self, severity: str, text: str) -> None:
        """Called by TensorRT, from any thread."""
        with self._lock:
            for lines in self._recordings:
                lines.append(LogLine(severity, text))

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[LogLine]]:
        """Collects what is logged meanwhile."""
        lines: list[LogLine] = []
        with self._lock:
            self._recordings.append(lines)
        try:
            yield lines
        finally:
            with self._lock:  # by identity: two recordings that hold the same lines are equal
                self._recordings[:] = [other for other in self._recordings if other is not lines]


class Library:
    """One installed TensorRT."""

    def __init__(self, module: Any, flavour: str) -> None:
        self.module = module
        self.flavour = flavour
        self.version = str(module.__version__)
        self.log, self.logger = _log_of(module)

    @classmethod
    def load(cls, flavour: str) -> Library:
        """The installed library of `flavour`.

        Raises:
            MissingDependencyError: it isn't installed, doesn't import, or is of a version that isn't known.
        """
        if flavour not in FLAVOURS:
            raise ArgumentError(f"flavour {flavour!r} is not known; use one of {', '.join(FLAVOURS)}")
        try:
            module = _import(_MODULES[flavour])
        except Exception as error:  # noqa: BLE001 - a broken installation raises anything
            raise MissingDependencyError(
                f"{flavour} can't be imported ({error or type(error).__name__}); run {_INSTALL[flavour]}"
            ) from None
        version = _numbers(str(getattr(module, "__version__", "")))
        if version < OLDEST[flavour] or version[:1] > NEWEST[flavour]:
            known = f"{'.'.join(map(str, OLDEST[flavour]))} to {NEWEST[flavour][0]}.x"
            found = getattr(module, "__version__", "without a version")
            raise MissingDependencyError(f"{flavour} {found}: dmcodec knows {known}; run {_INSTALL[flavour]}")
        return cls(module, flavour)

    @classmethod
    def find(cls, flavour: str | None = None) -> Library:
        """The library of `flavour`, or the first that is installed."""
        if flavour is not None:
            return cls.load(flavour)
        problems = []
        for name in FLAVOURS:
            try:
                return cls.load(name)
            except MissingDependencyError as error:
                problems.append(str(error))
        raise MissingDependencyError("; or ".join(problems))

    def member(self, enumeration: str, name: str) -> Any | None:
        """A member of an enumeration by its name; None where this library has no such thing. Numbers differ."""
        return getattr(getattr(self.module, enumeration, None), name, None)

    def members(self, enumeration: str) -> list[str]:
        """Names of an enumeration's members."""
        return sorted(getattr(getattr(self.module, enumeration, None), "__members__", {}))

    @contextlib.contextmanager
    def failing_as(self, kind: type[DmcodecError], what: str) -> Iterator[list[LogLine]]:
        """Errors of the library become `kind`, with `what` failed and the logger's lines."""
        with self.log.recording() as lines, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # features are asked for by name, not by age
            try:
                yield lines
            except DmcodecError:
                raise
            except Exception as error:
                raise kind(explained(what, [*lines, LogLine("ERROR", str(error) or type(error).__name__)])) from error

    def checked(self, value: Value | None, kind: type[DmcodecError], what: str, lines: Sequence[LogLine]) -> Value:
        """`value`; where it says that the call failed (None, False, negative), an error of `kind`."""
        negative = isinstance(value, int) and value < 0
        if value is None or value is False or negative:
            raise kind(explained(f"{self.flavour} {self.version}: {what}", lines))
        return value


def explained(what: str, lines: Sequence[LogLine]) -> str:
    """One line: what failed, and what the logger said of it."""
    errors = [line.text for line in lines if "ERROR" in line.severity]
    errors = errors or [line.text for line in lines if line.severity == "WARNING"]
    texts = list(dict.fromkeys(" ".join(text.split()) for text in errors))[:_MESSAGE_LINES]
    return f"{what} ({'; '.join(texts) if texts else 'its logger gives no reason'})"


def _import(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(name)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


@functools.cache
def _log_of(module: Any) -> tuple[Log, Any]:
    """The one logger of a process: TensorRT keeps the first that it is given and ignores all others."""
    log = Log()

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            log.write(severity.name, msg)

    return log, Logger()
