"""dmcodec: the DM-Codec neural speech tokenizer, exported to ONNX and run without torch."""

from .cpus import let_blas_threads_sleep
from .privacy import switch_off_reports

__version__ = "0.1.0"

switch_off_reports()
let_blas_threads_sleep()
