"""TensorRT 10, TensorRT 11 and TensorRT for RTX behind one interface: found, version-checked, and called with errors.

All calls to them are in three modules: this one, `engine` beside it, and `dmcodec.export.tensorrt.builder`. The
libraries share one API; names that only some of them have are looked up first. A call that fails returns None, False or
a negative number, and writes the reason to the logger only: `Library.checked` raises an error with the logger's lines.
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

from dmcodec.errors import ArgumentError, DmcodecError, MissingDependencyError, first_line
from dmcodec.extras import refuse_together

TENSORRT, TENSORRT_RTX = "tensorrt", "tensorrt-rtx"
FLAVOURS = (TENSORRT, TENSORRT_RTX)
OLDEST = {TENSORRT: (10, 13), TENSORRT_RTX: (1, 4)}
NEWEST = {TENSORRT: (11,), TENSORRT_RTX: (1,)}  # major versions
_MODULES = {TENSORRT: "tensorrt", TENSORRT_RTX: "tensorrt_rtx"}
_INSTALL = {
    TENSORRT: '`pip install "dmcodec[trt]"`, for CUDA 12 "dmcodec[trt-cu12]" (from NVIDIA\'s package index)',
    TENSORRT_RTX: '`pip install "dmcodec[trt-rtx]"`',
}
_MESSAGE_LINES = 6

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class LogLine:
    """A line of TensorRT's log. `severity` is VERBOSE, INFO, WARNING, ERROR or INTERNAL_ERROR."""

    severity: str
    text: str


class Log:
    """Passes TensorRT's log lines to the recordings that they belong to. A process has one log for each library.

    A line belongs to the recordings of the thread that logs it. One of a thread without recordings, which the library
    started itself, belongs to all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recordings: list[tuple[int, list[LogLine]]] = []

    def write(self, severity: str, text: str) -> None:
        """Add a line; TensorRT calls this from any thread."""
        here = threading.get_ident()
        with self._lock:
            own = [lines for thread, lines in self._recordings if thread == here]
            for lines in own or [lines for _, lines in self._recordings]:
                lines.append(LogLine(severity, text))

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[LogLine]]:
        """Collect the lines of this thread, and of threads of the library, that are logged within the context."""
        lines: list[LogLine] = []
        with self._lock:
            self._recordings.append((threading.get_ident(), lines))
        try:
            yield lines
        finally:
            with self._lock:  # by identity: two recordings that hold the same lines are equal
                self._recordings[:] = [other for other in self._recordings if other[1] is not lines]


class Library:
    """One installed TensorRT.

    Attributes:
        module: the imported package.
        flavour: TENSORRT or TENSORRT_RTX.
        version: the package's version.
        log: the log of the process.
        logger: the object that TensorRT writes the log through.
    """

    def __init__(self, module: Any, flavour: str) -> None:
        self.module = module
        self.flavour = flavour
        self.version = str(module.__version__)
        self.log, self.logger = _log_of(module)

    @classmethod
    def load(cls, flavour: str) -> Library:
        """Import the library of `flavour`.

        Raises:
            MissingDependencyError: it is not installed, can't be imported, or has an unknown version.
        """
        if flavour not in FLAVOURS:
            raise ArgumentError(f"flavour {flavour!r} is not known; use one of {', '.join(FLAVOURS)}")
        if flavour == TENSORRT:
            refuse_together(("tensorrt-cu13", "tensorrt-cu12"), ("trt", "trt-cu12"))
        try:
            module = _import(_MODULES[flavour])
        except Exception as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == _MODULES[flavour]
            problem = "is not installed" if absent else f"is installed, but can't be imported ({first_line(error)})"
            raise MissingDependencyError(f"{flavour} {problem}; run {_INSTALL[flavour]}") from error
        version = _numbers(str(getattr(module, "__version__", "")))
        if version < OLDEST[flavour] or version[:1] > NEWEST[flavour]:
            known = f"{'.'.join(map(str, OLDEST[flavour]))} to {NEWEST[flavour][0]}.x"
            found = getattr(module, "__version__", "without a version")
            raise MissingDependencyError(f"{flavour} {found}: dmcodec knows {known}; run {_INSTALL[flavour]}")
        return cls(module, flavour)

    @classmethod
    def find(cls, flavour: str | None = None) -> Library:
        """Import the library of `flavour`, or by default the first of FLAVOURS that is installed."""
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
        """Return a member of an enumeration by its name; None where this library has no such member."""
        return getattr(getattr(self.module, enumeration, None), name, None)

    def members(self, enumeration: str) -> list[str]:
        """Return the names of an enumeration's members."""
        return sorted(getattr(getattr(self.module, enumeration, None), "__members__", {}))

    @contextlib.contextmanager
    def errors_as(self, kind: type[DmcodecError], problem: str) -> Iterator[list[LogLine]]:
        """Turn exceptions of the library into errors of `kind`, with `problem` and the logger's lines."""
        with self.log.recording() as lines:
            try:
                yield lines
            except DmcodecError:
                raise
            except Exception as error:
                raise kind(with_log(problem, [*lines, LogLine("ERROR", str(error) or type(error).__name__)])) from error

    def checked(self, value: Value | None, kind: type[DmcodecError], problem: str, lines: Sequence[LogLine]) -> Value:
        """Return the result of a call; raise an error of `kind` where it means failure (None, False, negative)."""
        negative = isinstance(value, int) and value < 0
        if value is None or value is False or negative:
            raise kind(with_log(f"{self.flavour} {self.version}: {problem}", lines))
        return value


def with_log(problem: str, lines: Sequence[LogLine]) -> str:
    """Return a message of one line: the problem, and the errors (or else the warnings) of the log."""
    errors = [line.text for line in lines if "ERROR" in line.severity]
    errors = errors or [line.text for line in lines if line.severity == "WARNING"]
    texts = list(dict.fromkeys(" ".join(text.split()) for text in errors))[:_MESSAGE_LINES]
    return f"{problem} ({'; '.join(texts) if texts else 'its logger gives no reason'})"


@contextlib.contextmanager
def without_deprecations() -> Iterator[None]:
    """Silence deprecation warnings of the library. This changes the filters of the process: not for runs in threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # deprecated names are used where they still exist
        yield


def _import(name: str) -> Any:
    with without_deprecations():
        return importlib.import_module(name)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


@functools.cache
def _log_of(module: Any) -> tuple[Log, Any]:
    """Return the one log of a process: TensorRT keeps the first logger that it gets and ignores all others."""
    log = Log()

    class Logger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, msg: str) -> None:
            log.write(severity.name, msg)

    return log, Logger()
