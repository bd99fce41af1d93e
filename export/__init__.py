"""torch -> ONNX -> TensorRT, and the proof that the graphs say what torch says.

torch and onnx are imported when an export begins: `dmcodec.export.parity` and `.fidelity` work without them, and
`dmcodec.export.tensorrt` builds engines from a bundle without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle_writer import Source, export_bundle

__all__ = ["Source", "export_bundle"]


def __getattr__(name: str) -> Any:
    """Loads torch when it is needed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import bundle_writer

    return getattr(bundle_writer, name)
