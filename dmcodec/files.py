"""Files: outputs that appear only when they are complete, a lock between processes, and SHA-256 digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import DmcodecError, OutputError, OutputExistsError

_UMASK_LOCK = threading.Lock()


def refuse_existing(path: Path, force: bool) -> None:
    """Raise OutputExistsError if `path` exists and `force` is false."""
    if not force and os.path.exists(path):  # noqa: PTH110 - Path.exists raises where the name is too long
        raise OutputExistsError(f"{path}: exists already; give another name, or --force (force=True) to overwrite it")


@contextlib.contextmanager
def output_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it after any error.

    Missing parent folders are made. A rename within one folder is atomic: readers see the old file or the new one.

    Raises:
        OutputError: the folder can't be written to, or the disk is full.
    """
    path = Path(path)
    with _explained(path):
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix, dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with _explained(path):
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def output_folder(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` on success, remove it after any error.

    Raises:
        OutputExistsError: `path` exists, and `force` is false or it is not a folder.
        OutputError: the parent can't be written to, or the disk is full.
    """
    path = Path(path)
    with _explained(path):
        refuse_existing(path, force and path.is_dir())
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    try:
        with _explained(path):
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            _replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder and its parents if they are missing; OutputError if that fails."""
    with _explained(path):
        path.mkdir(parents=True, exist_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with output_file(path) as temporary:
        temporary.write_bytes(data)


def _replace_folder(new: Path, path: Path) -> None:
    if not path.exists():
        os.replace(new, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f"{_prefix(path)}old.", dir=path.parent))
    try:
        os.replace(path, old / "was")
        try:
            os.replace(new, path)
        except OSError:
            os.replace(old / "was", path)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names `path`."""
    try:
        yield
    except DmcodecError:  # some are OSErrors, too: a missing input, for example
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: can't be written ({error.strerror or error}); check the disk and the rights"
        ) from error


def _prefix(path: Path) -> str:
    """Return a short prefix for temporary names: a name has at most 255 bytes, and the target's may use all of them."""
    return f".{path.name[:40]}."


def _umask() -> int:
    """Return the umask. It can only be read by setting it, and two threads at once would leave it at 0."""
    with _UMASK_LOCK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


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
