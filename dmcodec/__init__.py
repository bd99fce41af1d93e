"""dmcodec: the DM-Codec neural speech tokenizer, exported to ONNX and run without torch."""

from .privacy import switch_off_reports

__version__ = "0.1.0"

switch_off_reports()
