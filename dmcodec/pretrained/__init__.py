"""Pretrained models from transformers: loading them, and recognisers of speech."""
