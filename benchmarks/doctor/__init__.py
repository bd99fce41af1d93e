"""`dmcodec doctor`: what is installed, and on a GPU machine what it can do. Start at `examine` and `run_gpu_report`."""

from .findings import Finding, examine
from .options import GpuReportOptions
from .run import run_gpu_report

__all__ = ["Finding", "GpuReportOptions", "examine", "run_gpu_report"]
