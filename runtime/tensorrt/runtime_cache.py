"""The runtime cache of TensorRT for RTX: what it compiled for a GPU, in a file beside the engines."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from dmcodec.files import json_sha256, write_bytes

from .driver import Gpu
from .library import Library

_KEY_DIGITS = 8


class RuntimeCache:
    """The compiled kernels of all engines in a folder, for one version of the library, GPU and driver.

    Without it RTX compiles the kernels anew in each process. It is read when the first context is made. The library
    refuses a cache that does not fit; then it starts empty.

    Args:
        library: TensorRT for RTX.
        folder: of the engines.
        gpu: that runs them.
    """

    def __init__(self, library: Library, folder: Path, gpu: Gpu) -> None:
        key = json_sha256({"gpu": gpu.name, "driver": list(gpu.driver_cuda)})[:_KEY_DIGITS]
        self.path = folder / f"runtime-{library.version}-{gpu.architecture}-{key}.cache"
        self._lock = threading.Lock()
        self._cache: Any = None
        self._on_disk: bytes | None = None

    def attach(self, config: Any) -> None:
        """Let the contexts of a runtime configuration read and fill the cache."""
        with self._lock:
            if self._cache is None:
                self._cache = config.create_runtime_cache()
                try:
                    self._on_disk = self.path.read_bytes()
                except OSError:  # a missing cache only makes the first runs slower
                    self._on_disk = None
                if self._on_disk and not self._cache.deserialize(self._on_disk):
                    self._on_disk = None
            config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write what was compiled since the cache was read. A folder that can't be written to keeps what it has."""
        with self._lock:
            content = None if self._cache is None else self._cache.serialize()
            if content is None or bytes(content) == self._on_disk:
                return
            try:
                write_bytes(self.path, bytes(content))
            except OSError:
                return
            self._on_disk = bytes(content)
