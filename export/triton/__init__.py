"""A bundle as a model repository for NVIDIA Triton Inference Server. Start at `export_triton`."""

from dmcodec.export.triton.options import TritonOptions
from dmcodec.export.triton.repository import export_triton

__all__ = ["TritonOptions", "export_triton"]
