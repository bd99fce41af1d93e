"""Audio in tar files: each member is read in place."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from dmcodec.streams import AudioSource, PieceReader

from .filesystems import file_system, is_url
from .items import TarMember
from .remote_files import FETCHED_BYTES, explained, file_state


class TarReader:
    """Opens members; see `dmcodec.runtime.corpus.items.Reader`."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, location: TarMember) -> Iterator[AudioSource]:
        """See `Reader`."""
        start, end = location.offset, location.offset + location.size
        with explained(str(location), "no such tar file"):
            if not is_url(location.path):
                file = open(location.path, "rb")  # noqa: SIM115 - closed below
            else:
                system, inside = file_system(location.path)
                if location.size <= FETCHED_BYTES:
                    file = io.BytesIO(system.cat_file(inside, start=start, end=end))
                    start = 0
                else:
                    file = system.open(inside, "rb")
        with file:
            yield cast(BinaryIO, PieceReader(file, [(start, location.size)]))

    def state(self, location: TarMember) -> str:
        """See `Reader`."""
        with self._lock:
            if location.path not in self._states:
                self._states[location.path] = file_state(location.path)[0]
            return self._states[location.path]

    def close(self) -> None:
        """See `Reader`."""
