"""dmcodec: the DM-Codec neural speech tokenizer, exported to ONNX and run without torch."""

__version__ = "0.1.0"
