"""`dmcodec doctor`: what is installed, and on a GPU machine what it can do. Start at `examine` and `run_gpu_report`."""

from dmcodec.benchmarks.doctor.findings import Finding, examine
from dmcodec.benchmarks.doctor.report import GpuReportOptions, run_gpu_report

__all__ = ["Finding", "GpuReportOptions", "examine", "run_gpu_report"]
