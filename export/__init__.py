"""torch -> ONNX -> TensorRT, and the proof that the graphs say what torch says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmcodec.export.bundle_writer import Source, export_bundle

__all__ = ["Source", "export_bundle"]


def __getattr__(name: str) -> Any:
    """Loads torch when it is needed: building engines from a bundle, in `dmcodec.export.tensorrt`, does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dmcodec.export import bundle_writer

    return getattr(bundle_writer, name)
