"""What `Codec.load` opens: a bundle, and the backend that runs it."""

from __future__ import annotations

from pathlib import Path

from dmcodec.bundle import Bundle, default_bundle_path
from dmcodec.codes import is_whole
from dmcodec.errors import ArgumentError
from dmcodec.precision import refuse_int8

from .backend import Backend
from .onnxruntime_backend import OnnxRuntimeBackend

_FOR_GPU = "load it with provider cpu, or export the checkpoint with --precision fp16"
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
    device_id: int | None = None,
    recurrent: str | None = None,
) -> tuple[Bundle, Backend]:
    """Open a bundle and prepare a backend; arguments and errors are those of `dmcodec.runtime.Codec.load`."""
    if backend not in BACKENDS:
        raise ArgumentError(f"backend {backend!r} is not known; use one of {', '.join(BACKENDS)}")
    if device_id is not None and (not is_whole(device_id) or device_id < 0):
        raise ArgumentError(f"device_id must be the number of a GPU, from 0 on, not {device_id!r}")
    if recurrent is not None and (recurrent != RECURRENT or backend == "onnxruntime"):
        raise ArgumentError(f"recurrent must be {RECURRENT!r}, with backend tensorrt; or leave it out")
    path = _named(path)
    if backend != "onnxruntime":
        if shrink_memory:
            raise ArgumentError("shrink_memory is for backend onnxruntime; leave it out")
        hybrid = recurrent is not None or backend == "tensorrt-hybrid"
        return _open_tensorrt(path, provider, threads, engine_cache, device_id or 0, hybrid)
    if device_id is not None and provider in (None, "cpu"):
        raise ArgumentError("device_id is for a GPU; provider cpu has none: leave it out, or name a provider")
    if provider not in (None, "cpu"):
        refuse_int8(Bundle.open(path).manifest.precision, f"with provider {provider}", _FOR_GPU)
    onnxruntime = OnnxRuntimeBackend(
        provider or "cpu", threads, shrink_memory, device_id=device_id or 0, engine_cache=engine_cache
    )
    return Bundle.open(path), onnxruntime


def _named(path: str | Path | None) -> Path:
    if path is None:
        return default_bundle_path()
    from dmcodec.models.resolve import bundle_path

    return bundle_path(path)


def _open_tensorrt(
    path: str | Path,
    provider: str | None,
    threads: int | None,
    engine_cache: str | Path | None,
    device_id: int,
    hybrid: bool,
) -> tuple[Bundle, Backend]:
    from dmcodec.runtime.tensorrt.backend import TensorrtBackend

    from .hybrid_backend import HybridBackend

    if provider not in (None, "cuda") or threads is not None:
        raise ArgumentError("backend tensorrt runs on the GPU: it takes no provider but cuda, and no threads")
    bundle = Bundle.open(path)
    refuse_int8(bundle.manifest.precision, "in TensorRT", _FOR_GPU)
    if hybrid:
        return bundle, HybridBackend(bundle, engine_cache, device_id=device_id)
    return bundle, TensorrtBackend(bundle, engine_cache, device_id=device_id)
