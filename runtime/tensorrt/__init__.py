"""Runs TensorRT engines: what an engine is, where engines are stored, and the backend that runs them. No torch.

Written against the documented API and tested on a simulated GPU; not yet run on a real one.
"""
