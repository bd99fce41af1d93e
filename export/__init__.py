"""torch -> ONNX, and the proof that the graphs say what torch says."""

from dmcodec.export.bundle_writer import Source, export_bundle

__all__ = ["Source", "export_bundle"]
