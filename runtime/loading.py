"""What `Codec.load` opens: a bundle, and the backend that runs it."""

from __future__ import annotations

from pathlib import Path

from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.errors import ArgumentError

from .backend import Backend
from .onnxruntime_backend import OnnxRuntimeBackend

BACKENDS = ("onnxruntime", "tensorrt")


def open_codec(
    path: str | Path | None,
    backend: str,
    provider: str | None,
    threads: int | None,
    engine_cache: str | Path | None,
    shrink_memory: bool,
) -> tuple[Bundle, Backend]:
    """Open a bundle and prepare a backend; arguments and errors are those of `dmcodec.runtime.Codec.load`."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
    path = default_bundle_path() if path is None else path
    if backend == "tensorrt":
        if shrink_memory:
            raise ArgumentError("shrink_memory is for backend onnxruntime; leave it out")
        return _open_tensorrt(path, provider, threads, engine_cache)
    if engine_cache is not None:
        raise ArgumentError("engine_cache is for backend tensorrt; onnxruntime has no engines")
    onnxruntime = OnnxRuntimeBackend(provider or "cpu", threads, shrink_memory)
    return Bundle.open(path), onnxruntime


def _open_tensorrt(
    path: str | Path, provider: str | None, threads: int | None, engine_cache: str | Path | None
) -> tuple[Bundle, Backend]:
    from dmcodec.runtime.tensorrt.backend import TensorrtBackend

    if provider not in (None, "cuda") or threads is not None:
        raise ArgumentError("backend tensorrt runs on the GPU: it takes no provider but cuda, and no threads")
    bundle = Bundle.open(path)
    return bundle, TensorrtBackend(bundle, engine_cache)
