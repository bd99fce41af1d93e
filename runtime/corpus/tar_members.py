"""Audio in tar files: each member is read in place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from dmcodec.streams import AudioSource, PieceReader

from .filesystems import is_url
from .items import TarMember
from .remote_files import explained, file_state, opened_part


class TarReader:
    """Opens members; see `dmcodec.runtime.corpus.items.Reader`."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, location: TarMember) -> Iterator[AudioSource]:
        """See `Reader`."""
        start, size = location.offset, location.size
        if is_url(location.path):
            file, start = opened_part(location.path, start, size)
        else:
            with explained(str(location), "no such tar file"):
                file = open(location.path, "rb")  # noqa: SIM115 - closed below
        with file:
            yield cast(BinaryIO, PieceReader(file, [(start, size)]))

    def state(self, location: TarMember) -> str:
        """See `Reader`."""
        with self._lock:
            if location.path not in self._states:
                self._states[location.path] = file_state(location.path)[0]
            return self._states[location.path]

    def close(self) -> None:
        """See `Reader`."""
