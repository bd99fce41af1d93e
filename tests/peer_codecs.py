"""Tiny untrained codecs of transformers, as it saves them; needs torch and transformers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

KINDS = ("encodec", "dac", "mimi", "xcodec")
RATIOS = (2, 4, 5, 8)


def write_codec(kind: str, folder: Path, **changes: Any) -> Path:
    """A codec of one kind, with codebooks that tell frames apart, and the settings of its extractor."""
    tf: Any = importlib.import_module("transformers")  # its own types are too narrow for tiny models

    torch.manual_seed(0)
    model = {"encodec": _encodec, "dac": _dac, "mimi": _mimi, "xcodec": _xcodec}[kind](tf, changes)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith(("codebook.embed", "embed_sum")):
                buffer.normal_(std=0.05)
    model.eval().save_pretrained(folder)
    extractor(kind, tf).save_pretrained(folder)
    return folder


def extractor(kind: str, tf: Any) -> Any:
    """The extractor that users of such a model call."""
    if kind in ("encodec", "mimi"):
        return tf.EncodecFeatureExtractor(sampling_rate=24000)
    return tf.DacFeatureExtractor(sampling_rate=16000 if kind == "xcodec" else 24000, hop_length=320)


def _encodec(tf: Any, changes: dict[str, Any]) -> Any:
    values = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64, "target_bandwidths": [0.9, 1.8, 3.6]}
    return tf.EncodecModel(tf.EncodecConfig(**{**values, **changes}))


def _dac(tf: Any, changes: dict[str, Any]) -> Any:
    sizes = {"encoder_hidden_size": 4, "decoder_hidden_size": 64, "n_codebooks": 3, "codebook_size": 32}
    values = {**sizes, "codebook_dim": 4, "downsampling_ratios": list(RATIOS), "sampling_rate": 24000}
    return tf.DacModel(tf.DacConfig(**{**values, **changes}))


def _mimi(tf: Any, changes: dict[str, Any]) -> Any:
    sizes = {"num_filters": 4, "hidden_size": 16, "codebook_size": 32, "codebook_dim": 8, "num_quantizers": 4}
    layers = {"num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    values = {**sizes, **layers, "vector_quantization_hidden_dimension": 8, "upsample_groups": 16}
    return tf.MimiModel(tf.MimiConfig(**{**values, **changes}))


def _xcodec(tf: Any, changes: dict[str, Any]) -> Any:
    hubert = tf.HubertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    dac = tf.DacConfig(encoder_hidden_size=4, decoder_hidden_size=64, downsampling_ratios=[8, 5, 4, 2], hidden_size=64)
    values = {"acoustic_model_config": dac, "semantic_model_config": hubert, "codebook_size": 64}
    return tf.XcodecModel(tf.XcodecConfig(**{**values, "target_bandwidths": [0.3, 0.6, 1.2], **changes}))
