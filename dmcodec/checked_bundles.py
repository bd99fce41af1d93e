"""Which bundles were checked before, so that opening one again does not hash all of its files again.

A record holds what the system says of each file: device, inode, size, and the times of the last change of content and
of status. The second of these times can't be set by a program, so a file that was written to since then, or replaced,
is checked again. What can't be relied on is not used: records that another user could have written, files that changed
in the last two seconds, file systems that make up, round or cache these values, and Windows, where they mean other
things.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import __version__
from .user_cache import CACHE_VARIABLE

SWITCH = "DMCODEC_REMEMBER_CHECKS"
MAX_RECORDS = 64
_MAX_RECORD_BYTES = 1 << 20
_SETTLED_NS = 2_000_000_000  # longer than the steps of any file system's clock
_NO = ("0", "false", "no", "off")
# Local ones that write the time of status themselves. On FAT and over SSH it is that of content, which `rsync -t` and
# `cp -p` set; NFS and SMB may answer from a cache of a minute; an image that can't be written to may be made again with
# all values as they were.
_RELIABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "overlay"})
_MOUNTS = Path("/proc/self/mountinfo")

Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Checked:
    """The state of a bundle's files at one moment. `stamps` is by name."""

    path: Path
    stamps: dict[str, Stamp]

    @classmethod
    def now(cls, path: Path, names: Iterable[str]) -> Checked | None:
        """Return the state of these files; None where checks are not remembered or can't be, or a file is missing."""
        names = set(names)
        if sys.platform == "win32" or os.environ.get(SWITCH, "").strip().lower() in _NO:
            return None
        if not all(map(_is_reliable, {Path(os.path.realpath(path / name)).parent for name in names})):
            return None
        try:
            return cls(Path(os.path.realpath(path)), {name: _stamp(path / name) for name in sorted(names)})
        except OSError:
            return None

    def is_known(self) -> bool:
        """Return whether this dmcodec has checked the files in this very state."""
        folder = _trusted_folder()
        if folder is None:
            return False
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return _read(folder / self._name) == self._text()
        return False

    def remember(self) -> None:
        """Write the record, unless a file changed meanwhile or a moment before; errors are passed over."""
        if self != Checked.now(self.path, self.stamps) or not self._is_settled():
            return
        with contextlib.suppress(OSError, RuntimeError):
            _make(_folder())
            if (folder := _trusted_folder()) is not None:
                _write(folder / self._name, self._text())
                _bound(folder)

    @property
    def _name(self) -> str:
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:32] + ".json"

    def _text(self) -> bytes:
        values = {"dmcodec": __version__, "path": os.fsdecode(self.path), "files": self.stamps}
        return json.dumps(values, indent=1).encode()

    def _is_settled(self) -> bool:
        newest = max((max(stamp[3:]) for stamp in self.stamps.values()), default=0)
        return time.time_ns() - newest > _SETTLED_NS


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_reliable(folder: Path) -> bool:
    """Return whether the file system of a folder, a real path, shows every change of a file in what it says of it."""
    if sys.platform == "darwin":
        return Path("/Volumes") not in folder.parents  # other disks and servers
    kinds: dict[Path, str] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
            place, _, details = line.partition(" - ")
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place.split(" ")[4])
            kinds[Path(point)] = details.split(" ")[0]  # of two on one another, the later one is seen
    return next((kinds[place] for place in (folder, *folder.parents) if place in kinds), "") in _RELIABLE


def _folder() -> Path:
    """Return the folder of the records; RuntimeError where the user has no home."""
    if cache := os.environ.get(CACHE_VARIABLE):
        return Path(os.path.realpath(Path(cache).expanduser() / "checked"))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(base).is_absolute():
        base = str(Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache"))
    return Path(os.path.realpath(Path(base, "dmcodec", "checked")))


if sys.platform == "win32":

    def _trusted_folder() -> Path | None:
        return None

    def _read(path: Path) -> bytes:
        raise OSError(path)
else:

    def _trusted_folder() -> Path | None:
        """Return the folder of the records where nobody but this user and root can write to it, or replace it."""
        try:
            folder = _folder()
            user, found = os.geteuid(), folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or not _is_own(found, user):
                return None
            for parent in folder.parents:
                above = parent.lstat()
                shared = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
                if shared or above.st_uid not in (0, user):
                    return None
        except (OSError, RuntimeError):
            return None
        return folder

    def _read(path: Path) -> bytes:
        """Return the content of a record; OSError where it is missing, or not this user's alone."""
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or not _is_own(found, os.geteuid()):
                raise PermissionError(path)
            return file.read(_MAX_RECORD_BYTES)

    def _is_own(found: os.stat_result, user: int) -> bool:
        return found.st_uid == user and not found.st_mode & 0o022


def _make(folder: Path) -> None:
    """Make a folder and its parents for this user alone; pathlib would make the parents as the umask says."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _bound(folder: Path) -> None:
    """Keep the newest records."""
    entries = sorted(folder.iterdir(), key=lambda entry: entry.lstat().st_mtime_ns, reverse=True)
    for entry in entries[MAX_RECORDS:]:
        entry.unlink(missing_ok=True)
