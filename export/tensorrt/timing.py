"""The timing cache: what full TensorRT measured of its tactics, kept beside the engines for the next build."""

from __future__ import annotations

from pathlib import Path

from dmcodec.errors import EngineBuildError
from dmcodec.files import write_bytes
from dmcodec.tensorrt.builder import has_timing_cache, merged_timing_caches
from dmcodec.tensorrt.driver import Gpu
from dmcodec.tensorrt.library import Library
from dmcodec.tensorrt.lock import locked


class TimingCache:
    """The timing cache of one library version and GPU in a folder. Safe between threads and processes."""

    def __init__(self, library: Library, folder: Path, gpu: Gpu | None) -> None:
        self._library = library
        architecture = gpu.architecture if gpu is not None else "none"
        self.path = folder / f"timing-{library.version}-{architecture}.cache"

    def load(self) -> bytes | None:
        """Its content; None where there is none, or the library keeps none."""
        if not has_timing_cache(self._library):
            return None
        try:
            return self.path.read_bytes()
        except OSError:  # it only saves time
            return None

    def merge(self, measured: bytes | None) -> None:
        """Adds what a build measured to what others have written meanwhile.

        Raises:
            OutputError: the folder can't be written to.
        """
        if measured is None:
            return
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            old = self.load()
            try:
                merged = merged_timing_caches(self._library, [old, measured]) if old else measured
            except EngineBuildError:  # the old one is damaged
                merged = measured
            write_bytes(self.path, merged)
