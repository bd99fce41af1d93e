"""Outputs that are whole or not there: written to a temporary file beside the target, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dmcodec.errors import DmcodecError, OutputError, OutputExistsError


def refuse_existing(path: Path, force: bool) -> None:
    """Raises OutputExistsError where `path` exists and `force` is false."""
    if not force and path.exists():
        raise OutputExistsError(f"{path}: exists already; give another name, or --force (force=True) to overwrite it")


@contextlib.contextmanager
def output_file(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it to `path` on success, removes it on any failure.

    Missing parent folders are made. A rename within one folder is atomic: readers see the old file or the new one.

    Raises:
        OutputError: the folder can't be written to, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=path.suffix, dir=path.parent)
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
    """Yields a temporary folder beside `path`; renames it to `path` on success, removes it on any failure.

    Raises:
        OutputExistsError: `path` exists, and `force` is false or it is not a folder.
        OutputError: the parent can't be written to, or the disk is full.
    """
    path = Path(path)
    refuse_existing(path, force and path.is_dir())
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with _explained(path):
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())
            _replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path`, whole or not at all."""
    with output_file(path) as temporary:
        temporary.write_bytes(data)


def _replace_folder(new: Path, path: Path) -> None:
    if not path.exists():
        os.replace(new, path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
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
    try:
        yield
    except DmcodecError:  # some are OSErrors, too: an input that went missing, say
        raise
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error}); check the disk and the rights") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
