"""Pretrained models from transformers: loading, and speech recognition."""
