"""`dmcodec doctor`: what is installed, and a report of a GPU machine. Start at `examine` and `run_gpu_report`."""

from .findings import examine
from .options import GpuReportOptions
from .result import Finding
from .run import run_gpu_report

__all__ = ["Finding", "GpuReportOptions", "examine", "run_gpu_report"]
