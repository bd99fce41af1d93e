"""Waveforms as inputs of transformers models: sample rate, padding and output length."""

from __future__ import annotations

from typing import Any

from .loading import Purpose


def check_sample_rate(model_id: str, extractor: Any, sample_rate: int, purpose: Purpose) -> None:
    """Raise the purpose's error where a model needs another sample rate."""
    needed = getattr(extractor, "sampling_rate", sample_rate)
    if needed != sample_rate:
        raise purpose.error(f"{model_id}: needs audio at {needed} Hz, the data are at {sample_rate} Hz")


def allows_padding(model: Any, extractor: Any) -> bool:
    """Return whether padding in a batch leaves the output of a model for waveforms unchanged.

    Models that normalise over time (HuBERT base, wav2vec 2.0 base) depend on the padding.
    """
    by_frame = getattr(model.config, "feat_extract_norm", None) == "layer"
    knows_lengths = hasattr(model, "_get_feat_extract_output_lengths")
    return by_frame and knows_lengths and bool(getattr(extractor, "return_attention_mask", False))


def num_frames(model: Any, samples: int) -> int:
    """Return the number of output frames of a model for waveforms of that many samples."""
    import torch

    return int(model._get_feat_extract_output_lengths(torch.tensor(samples)))
