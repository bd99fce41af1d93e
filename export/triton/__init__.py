"""Writes a bundle as a model repository for NVIDIA Triton Inference Server. Start at `export_triton`."""

from .configs import TritonOptions
from .repository import export_triton

__all__ = ["TritonOptions", "export_triton"]
