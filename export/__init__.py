"""Exports a torch checkpoint to a bundle of ONNX graphs, and from there to TensorRT engines or a Triton repository.

The graphs of a bundle match torch within the thresholds of `dmcodec.precision`, or nothing is written.

torch and onnx are imported when an export begins: `dmcodec.export.parity`, `.reference` and `.agreement` need neither,
and `dmcodec.export.tensorrt` builds engines without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle_writer import Source, export_again, export_bundle

__all__ = ["Source", "export_again", "export_bundle"]


def __getattr__(name: str) -> Any:
    """Import the exporter, and torch with it, at the first use of a name of `__all__`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import bundle_writer

    return getattr(bundle_writer, name)
