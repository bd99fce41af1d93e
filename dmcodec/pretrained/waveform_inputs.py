"""Waveforms as inputs of transformers models: sample rate, padding and output length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmcodec.audio import Waveform, prepare_waveform


def model_rate(extractor: Any, sample_rate: int) -> int:
    """Return the sample rate in Hz that a model was trained at; `sample_rate` where its extractor names none."""
    return int(getattr(extractor, "sampling_rate", None) or sample_rate)


def at_rate(waveforms: Sequence[Waveform], sample_rate: int, target_rate: int) -> list[Waveform]:
    """Return waveforms (samples,), resampled each on its own where the rates in Hz differ."""
    if sample_rate == target_rate:
        return list(waveforms)
    return [prepare_waveform(waveform, sample_rate, target_rate) for waveform in waveforms]


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
