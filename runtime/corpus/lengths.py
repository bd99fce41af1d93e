"""Lengths of clips before they are read: from headers where these tell, else from the number of bytes. Estimates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import soundfile

from dmcodec.errors import DmcodecError
from dmcodec.runtime.workers import Workers

from .items import Item
from .opening import Readers

_THREADS = 8
# Of audio whose header does not tell: MP3 of 128 kbit/s.
_BYTES_PER_S = 16_000
# No audio takes fewer bytes a second; a header that says so is wrong.
_LEAST_BYTES_PER_S = 100


def with_lengths(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, each with an estimate of its length; headers are read in several threads."""
    readers = Readers()
    try:
        with Workers.start(_THREADS) as workers:
            yield from workers.in_order(lambda item: _with_length(item, readers), items)
    finally:
        readers.close()


def _with_length(item: Item, readers: Readers) -> Item:
    if item.audio_s is not None:
        return item
    length_s = _length_s(item, readers) - (item.start_s or 0.0)
    return replace(item, audio_s=round(max(0.01, length_s if item.duration_s is None else item.duration_s), 3))


def _length_s(item: Item, readers: Readers) -> float:
    estimate = item.size_bytes / _BYTES_PER_S
    try:
        with readers.opened(item) as source, soundfile.SoundFile(source) as file:
            length_s = file.frames / file.samplerate
    except (DmcodecError, soundfile.SoundFileError, OSError, ValueError, TypeError, ZeroDivisionError):
        return estimate  # what is wrong shows when the clip is read
    return min(length_s, item.size_bytes / _LEAST_BYTES_PER_S) if item.size_bytes else length_s
