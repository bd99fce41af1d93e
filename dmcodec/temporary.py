"""Temporary files and folders beside an output: one writer for each output, and no leftovers.

A temporary file is named after its output, `.NAME.HASH.dmcodec-part`, and its writer holds a lock (flock) on it. So a
second writer of the same output is refused. The system releases the lock of a process that was killed; the next run
that writes to the folder then removes what it left. A folder has a lock file beside it, `.NAME.HASH.dmcodec-lock`.

Where the file system has no such locks, and on Windows, temporary names are random, nothing is refused, and what a
killed process leaves stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .renames import exchange, rename_new

MARKS = PART, LOCK, OLD = ".dmcodec-part", ".dmcodec-lock", ".dmcodec-old"
_NAME_CHARACTERS, _SUFFIX_BYTES = 40, 16
# A sweep of another process holds a lock for a moment.
_TRIES, _PAUSE_S = 20, 0.01
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class BusyError(Exception):
    """Another process, or another thread, writes this output."""


class _NoLocksError(Exception):
    """The file system has no locks, or the leftover file belongs to somebody else."""


def is_temporary(path: Path) -> bool:
    """Return whether a path is that of a temporary file of `temporary_file`."""
    return path.name.startswith(".") and PART in path.name


def name_of(path: Path, mark: str, key: str | None = None, suffix: str = "") -> Path:
    """Return a name beside `path`: of at most 255 bytes, and another for every other path in the folder."""
    start = path.name[:_NAME_CHARACTERS].encode("ascii", "ignore").decode()
    key = key or hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    return path.with_name(f".{start}.{key}{mark}{suffix if len(os.fsencode(suffix)) <= _SUFFIX_BYTES else ''}")


@contextlib.contextmanager
def temporary_file(path: Path, suffix: str, wait: bool = False) -> Iterator[Path]:
    """Yield a new file beside `path`, locked; remove it at the end where it still has its name.

    Args:
        path: the output.
        suffix: of the temporary name, where it is short; some libraries choose a format by it.
        wait: wait while another writer has the output.

    Raises:
        BusyError: another writer has the output.
        OSError: the folder can't be written to.
    """
    handle: int | None
    try:
        temporary, handle = _claimed(name_of(path, PART, suffix=suffix), wait)
    except _NoLocksError:
        temporary, handle = _random_file(path, suffix)
    try:
        yield temporary
    finally:
        _remove_own(temporary, handle)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`, with a locked file beside it; remove it at the end where it is still there.

    Raises:
        BusyError: another writer has the output.
        OSError: the folder can't be written to.
    """
    lock: Path | None = None
    try:
        lock, handle = _claimed(name_of(path, LOCK))
        temporary = name_of(path, PART)
    except _NoLocksError:
        temporary = name_of(path, PART, secrets.token_hex(6))
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a writer that was killed
        temporary.mkdir()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            _remove_own(lock, handle)


def replace_folder(new: Path, path: Path) -> None:
    """Put the folder `new` in the place of the folder `path`; at every moment one of the two has the name, or can.

    In one step where the system exchanges names. Else the old folder is put aside, and `restore` puts it back where
    the process was killed meanwhile.
    """
    if exchange(new, path):
        return
    aside = name_of(path, OLD)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        path.rename(aside / path.name)
        new.rename(path)
    finally:
        _restore(aside)


def sweep(folder: str | Path) -> None:
    """Remove what killed processes left in `folder`: temporary files and folders that no process holds.

    A folder that was put aside while it was replaced gets its name back where that is free. Errors are passed over:
    what can't be removed stays.
    """
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(".") and ".dmcodec-" in entry.name]
        for name in sorted(names, key=lambda each: (each.endswith(LOCK), each)):
            with contextlib.suppress(OSError, BusyError, _NoLocksError):
                _sweep(Path(folder, name))


def _sweep(path: Path) -> None:
    if path.is_symlink():
        return
    if path.is_file() and (PART in path.name or path.name.endswith(LOCK)):
        handle = _lock_existing(path, tries=1)
        if handle is not None:
            _remove_own(path, handle)
    elif path.is_dir() and path.name.endswith((PART, OLD)):
        stem = path.name.removesuffix(PART).removesuffix(OLD)
        lock, handle = _claimed(path.with_name(stem + LOCK), tries=1)
        try:
            if path.name.endswith(OLD):
                _restore(path)
            else:
                shutil.rmtree(path, ignore_errors=True)
        finally:
            _remove_own(lock, handle)


def _restore(aside: Path) -> None:
    """Give the folder in `aside` its name back where that is free; remove what another folder has replaced."""
    for old in aside.iterdir():
        with contextlib.suppress(OSError):
            rename_new(old, aside.with_name(old.name))
            continue
        if not os.path.lexists(aside.with_name(old.name)):
            return  # it is the only copy
    shutil.rmtree(aside, ignore_errors=True)


def _claimed(path: Path, wait: bool = False, tries: int = _TRIES) -> tuple[Path, int]:
    """Make the file `path`, new and locked; return it and the descriptor that holds the lock."""
    if sys.platform == "win32":
        raise _NoLocksError
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666)
        except FileExistsError:
            found = _lock_existing(path, wait, tries)
            if found is not None:  # of a writer that was killed
                _remove_own(path, found)
            continue
        try:
            if _lock(handle, False) and _is_same(path, handle):
                return path, handle
        except BaseException:
            os.close(handle)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        os.close(handle)  # a sweep came between


def _lock_existing(path: Path, wait: bool = False, tries: int = _TRIES) -> int | None:
    """Lock a file that is there; None where it is gone.

    Raises:
        BusyError: somebody holds the lock.
        _NoLocksError: it can't be opened or locked.
    """
    for attempt in range(tries):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            handle = os.open(path, os.O_RDWR | _NO_FOLLOW)
        except FileNotFoundError:
            return None
        except OSError:  # somebody else's, or a link
            raise _NoLocksError from None
        try:
            locked = _lock(handle, wait)
            if locked and _is_same(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if locked:
            return None
    raise BusyError


def _is_same(path: Path, handle: int) -> bool:
    """Return whether `path` still is the name of the open file."""
    try:
        named, opened = path.stat(follow_symlinks=False), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _remove_own(path: Path, handle: int | None) -> None:
    """Remove a file whose lock this process holds, where it still has this name; then release the lock."""
    try:
        if handle is None or _is_same(path, handle):
            path.unlink(missing_ok=True)
    finally:
        if handle is not None:
            _unlock(handle)
            os.close(handle)


def _random_file(path: Path, suffix: str) -> tuple[Path, None]:
    while True:
        temporary = name_of(path, PART, secrets.token_hex(6), suffix)
        try:
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:
            continue
        os.close(handle)
        return temporary, None


if sys.platform == "win32":

    def _lock(_handle: int, _wait: bool) -> bool:
        raise _NoLocksError

    def _unlock(_handle: int) -> None: ...
else:
    import fcntl

    def _lock(handle: int, wait: bool) -> bool:
        """Lock an open file; False where another process or thread holds the lock."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                return False
            raise _NoLocksError from None
        return True

    def _unlock(handle: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # for copies of the descriptor in children, too
