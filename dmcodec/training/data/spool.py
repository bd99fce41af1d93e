"""One recording, decoded whole before any of it is kept: in memory, or on disk where it is long."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.errors import OutputError

_MEMORY_BYTES = 32 << 20  # 17 minutes at 16 kHz


class Spool:
    """Int16 samples of one recording.

    Attributes:
        num_samples: so far.
        peak: largest magnitude, of full scale 1.
    """

    def __init__(self, folder: Path) -> None:
        """An empty spool; what doesn't fit in memory goes to a nameless file in `folder`."""
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115 - closed on exit
        self.num_samples = 0
        self.peak = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Frees memory and disk."""
        self._file.close()

    def extend(self, blocks: Iterable[Waveform]) -> None:
        """Appends blocks (samples,) of float32; what lies beyond [-1, 1] is clipped.

        Raises:
            OutputError: the disk is full.
        """
        for block in blocks:
            if not len(block):
                continue
            samples = np.clip(np.rint(block * np.float32(32768)), -32768, 32767).astype("<i2")
            self.peak = max(self.peak, float(np.abs(samples.astype(np.int32)).max()) / 32768)
            self.num_samples += len(samples)
            try:
                self._file.write(samples.tobytes())
            except OSError as error:
                raise OutputError(
                    f"{self._folder}: can't be written ({error.strerror or error}); check the disk and the rights"
                ) from error

    def read(self, start: int, length: int) -> NDArray[np.int16]:
        """(length,) samples from `start`."""
        self._file.seek(2 * start)
        return np.frombuffer(self._file.read(2 * length), "<i2").astype(np.int16)
