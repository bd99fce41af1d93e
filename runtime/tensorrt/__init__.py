"""Runs TensorRT engines: device memory, streams, CUDA graphs, and the backend made of them. No torch."""
