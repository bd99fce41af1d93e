"""Tar archives that are the same wherever and whenever they are written."""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO


class TarWriter:
    """Writes members in order, without times, owners or rights of their own; the format is that of POSIX.1-2001."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - `close` ends it

    def add(self, name: str, data: bytes) -> None:
        """Append a member."""
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(data), 0o644, 0
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive; the file stays open."""
        self._tar.close()
