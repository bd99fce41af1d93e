"""What `Codec.load` opens: a bundle, and the backend that runs it."""

from __future__ import annotations

from pathlib import Path

from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.errors import ArgumentError

from .backend import Backend
from .onnxruntime_backend import OnnxRuntimeBackend

# The last is the second with its LSTMs in ONNX Runtime: `recurrent=RECURRENT`.
BACKENDS = ("onnxruntime", "tensorrt", "tensorrt-hybrid")
RECURRENT = "onnxruntime-cuda"


def open_codec(
    path: str | Path | None,
    backend: str,
    provider: str | None,
    threads: int | None,
    engine_cache: str | Path | None,
    shrink_memory: bool,
    recurrent: str | None = None,
) -> tuple[Bundle, Backend]:
    """Open a bundle and prepare a backend; arguments and errors are those of `dmcodec.runtime.Codec.load`."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
    if recurrent is not None and (recurrent != RECURRENT or backend == "onnxruntime"):
        raise ArgumentError(f"recurrent must be {RECURRENT!r}, with backend tensorrt; or leave it out")
    path = default_bundle_path() if path is None else path
    if backend != "onnxruntime":
        if shrink_memory:
            raise ArgumentError("shrink_memory is for backend onnxruntime; leave it out")
        hybrid = recurrent is not None or backend == "tensorrt-hybrid"
        return _open_tensorrt(path, provider, threads, engine_cache, hybrid)
    onnxruntime = OnnxRuntimeBackend(provider or "cpu", threads, shrink_memory, engine_cache=engine_cache)
    return Bundle.open(path), onnxruntime


def _open_tensorrt(
    path: str | Path, provider: str | None, threads: int | None, engine_cache: str | Path | None, hybrid: bool
) -> tuple[Bundle, Backend]:
    from dmcodec.runtime.tensorrt.backend import TensorrtBackend

    from .hybrid_backend import HybridBackend

    if provider not in (None, "cuda") or threads is not None:
        raise ArgumentError("backend tensorrt runs on the GPU: it takes no provider but cuda, and no threads")
    bundle = Bundle.open(path)
    return bundle, HybridBackend(bundle, engine_cache) if hybrid else TensorrtBackend(bundle, engine_cache)
