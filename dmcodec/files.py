"""Files: outputs that appear only when they are complete, a lock between processes, and SHA-256 digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ArgumentError, DmcodecError, OutputError, OutputExistsError
from .renames import rename_new, sync, sync_folder, sync_tree
from .temporary import PART, BusyError, is_temporary, replace_folder, sweep, temporary_file, temporary_folder

STDOUT = Path("/dev/stdout")  # known on every system
_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr)$|/(?:dev|proc/self)/fd/(\d+)$")


def refuse_existing(path: Path, force: bool) -> None:
    """Raise OutputExistsError if `path` exists and `force` is false. Devices and FIFOs are there to be written to."""
    if not force and os.path.exists(path) and not is_special(path):  # noqa: PTH110 - Path.exists raises where the name is too long
        raise OutputExistsError(f"{path}: exists already; give another name, or --force (force=True) to overwrite it")


def refuse_inputs(out: Path, *inputs: Path | None) -> None:
    """Raise ArgumentError if writing `out` would replace one of the inputs: the same file, or one in the folder."""
    if is_special(out):
        return
    for path in filter(None, inputs):
        relation = _relation(out, path)
        if relation:
            raise ArgumentError(f"{out}: {relation} the input {path}; name another output")


def _relation(out: Path, path: Path) -> str:
    """Return whether `out` "is" an input, or "holds" it; "" where neither is the case."""
    try:
        if out.samefile(path):
            return "is"
        folder = out.resolve()
        return "holds" if folder.is_dir() and path.resolve().is_relative_to(folder) else ""
    except (OSError, ValueError):
        return ""


def is_stdout(path: Path) -> bool:
    """Return whether `path` names stdout: /dev/stdout, /dev/fd/1 or /proc/self/fd/1."""
    return _descriptor(path) == 1


def is_special(path: Path) -> bool:
    """Return whether `path` is a device, a FIFO, a socket, or the name of a descriptor: these are never replaced."""
    if _descriptor(path) is not None:
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextlib.contextmanager
def output_file(path: str | Path, replace: bool = True, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it after any error.

    Missing parent folders are made. A rename within one folder is atomic: readers see the old file or the new one, and
    the new one outlasts a power failure. A link stays, and its target is replaced; a file that is replaced hands on its
    permissions. A device or a FIFO is opened first, and gets the content at the end. A path that this function yielded
    is yielded again: what writes a file by a path can write into one that is open.

    Args:
        path: the file.
        replace: whether a file that is there, or that appears meanwhile, is replaced.
        suffix: of the temporary path; by default that of `path`.

    Raises:
        OutputExistsError: the file is there, and `replace` is false.
        OutputError: the folder can't be written to, the disk is full, or another process writes the same file.
    """
    with _output_file(Path(path), replace, suffix, wait=False) as temporary:
        yield temporary


@contextlib.contextmanager
def _output_file(path: Path, replace: bool, suffix: str | None, wait: bool) -> Iterator[Path]:
    if is_temporary(path):
        yield path
        return
    suffix = path.suffix if suffix is None else suffix
    with _explained(path):
        if is_special(path):
            with _special(path, suffix) as temporary, _named(path, temporary):
                yield temporary
            return
        target = _through_link(path)
        if target.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        refuse_existing(target, replace)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(target, suffix, wait) as temporary, _named(path, temporary):
            _copy_mode(target, temporary, writable=True)
            yield temporary
            sync(temporary)
            _copy_mode(target, temporary)
            if replace:
                os.replace(temporary, target)
            else:
                _rename_new(temporary, target, path)
            sync_folder(target.parent)


@contextlib.contextmanager
def _special(path: Path, suffix: str) -> Iterator[Path]:
    """Open a device or a FIFO (this waits for its reader), yield a temporary file, and copy its content at the end."""
    descriptor = _descriptor(path)
    handle = os.open(path, os.O_WRONLY) if descriptor is None else os.dup(descriptor)
    with os.fdopen(handle, "wb") as target, tempfile.TemporaryDirectory(prefix="dmcodec.") as folder:
        temporary = Path(folder, f".out{PART}{suffix}")
        temporary.touch()
        yield temporary
        with temporary.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)


@contextlib.contextmanager
def output_folder(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it after any error.

    A link stays, and the folder that it leads to is replaced. What killed processes left beside it is removed first,
    or put back where it is the only copy.

    Raises:
        OutputExistsError: `path` exists, and `force` is false or it is not a folder.
        OutputError: the parent can't be written to, the disk is full, or another process writes the same folder.
    """
    path = Path(path)
    with _explained(path):
        target = _through_link(path)
        sweep(target.parent)
        if os.path.exists(target) and not os.path.isdir(target):  # noqa: PTH110, PTH112 - Path's raise where the name is too long
            raise OutputExistsError(f"{path}: exists already, and is no folder; give another name")
        refuse_existing(path, force)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target) as temporary, _named(path, temporary):
            _copy_mode(target, temporary, writable=True)
            yield temporary
            sync_tree(temporary)
            _copy_mode(target, temporary)
            if force and target.is_dir():
                replace_folder(temporary, target)
            else:
                _rename_new(temporary, target, path)
            sync_folder(target.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its parents if they are missing; OutputError if that fails."""
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all; wait while another process writes the same file."""
    with _output_file(Path(path), replace=True, suffix=None, wait=True) as temporary:
        temporary.write_bytes(data)


def _through_link(path: Path) -> Path:
    """Return what a link leads to, whether it is there or not; any other path as it is."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OutputError(f"{path}: is a link that leads to itself; name another file")
    return target


def _descriptor(path: Path) -> int | None:
    """Return the descriptor that a path such as /dev/stdout or /dev/fd/3 names."""
    match = _DESCRIPTOR.match(path.as_posix())
    if match is None:
        return None
    return int(match[2]) if match[2] else {"stdout": 1, "stderr": 2}[match[1]]


def _copy_mode(old: Path, new: Path, writable: bool = False) -> None:
    """Give `new` the permissions of `old` where that exists; `writable`: and let the owner use it meanwhile."""
    with contextlib.suppress(OSError):
        mode = old.stat().st_mode & 0o777
        os.chmod(new, mode | 0o700 if writable and new.is_dir() else mode | 0o600 if writable else mode)


def _rename_new(temporary: Path, target: Path, path: Path) -> None:
    try:
        rename_new(temporary, target)
    except FileExistsError:
        raise OutputExistsError(
            f"{path}: appeared while it was written; give another name, or --force (force=True) to overwrite it"
        ) from None


@contextlib.contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Name the output in errors that name its temporary file."""
    try:
        yield
    except OutputError as error:
        if str(temporary) not in str(error):
            raise
        raise type(error)(str(error).replace(str(temporary), _shown(path))) from error


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names `path`."""
    try:
        yield
    except DmcodecError:  # some are OSErrors, too: a missing input, for example
        raise
    except BusyError:
        raise OutputError(
            f"{path}: is being written by another process; wait until it ends, or name another output"
        ) from None
    except (NotADirectoryError, FileExistsError) as error:
        file = next((each for each in (path, *path.parents) if os.path.isfile(each)), path)  # noqa: PTH113 - as above
        raise OutputError(f"{path}: can't be written ({file} is a file, not a folder); name another output") from error
    except BrokenPipeError as error:
        raise OutputError(
            f"{_shown(path)}: can't be written (its reader has ended); read all of it, or write to a file"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{_shown(path)}: can't be written ({error.strerror or error}); check the disk and the rights"
        ) from error


def _shown(path: Path) -> str:
    return "stdout" if is_stdout(path) else str(path)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold a lock on the file `path`; wait while another process holds it, or with `wait` false raise OutputError.

    The file is made if it is missing, and stays. The system releases the lock when the process ends, even if it is
    killed.

    Raises:
        OutputError: the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(
            f"{path}: can't be written ({error.strerror or error}); check the disk and the rights"
        ) from None
    try:
        if wait:
            _lock(handle)
        elif not _try_lock(handle):
            raise OutputError(f"{path.parent}: another process works there; wait until it ends")
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        while True:
            try:
                msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
            except OSError:  # msvcrt stops trying after ten seconds
                continue
            return

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX)

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, as hex digits; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
