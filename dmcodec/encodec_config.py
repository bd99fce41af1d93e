"""The configuration of an EnCodec model of transformers (`model_type` "encodec") as fields of `CodecConfig`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError

# Field of transformers -> field of CodecConfig, where the value is the same.
_FIELDS = {
    "num_filters": "n_filters",
    "upsampling_ratios": "strides",
    "hidden_size": "dimension",
    "dilation_growth_rate": "dilation_base",
    "residual_kernel_size": "residual_kernel_size",
    "num_residual_layers": "n_residual_layers",
    "num_lstm_layers": "lstm_layers",
    "codebook_size": "codebook_size",
    "sampling_rate": "sample_rate",
    "use_causal_conv": "causal",
    "compress": "compress",
    "pad_mode": "pad_mode",
    "norm_type": "norm",
    "target_bandwidths": "bandwidths_kbps",
}
# Fields that files of early versions lack, and what they mean there.
_OPTIONAL = {
    "trim_right_ratio": 1.0, "use_conv_shortcut": True, "audio_channels": 1, "normalize": False,
    "chunk_length_s": None, "kernel_size": 7, "last_kernel_size": 7,
}  # fmt: skip
_KERNEL_SIZE = 7


def from_transformers(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Convert the values of a config.json of transformers.

    Args:
        values: JSON values, with `model_type`.
        source: names them in errors.

    Returns:
        Values of the fields of `CodecConfig`, unchecked.

    Raises:
        ConfigError: another model than EnCodec, one that is not supported, or a field is missing.
    """
    kind = values["model_type"]
    if kind != "encodec":
        raise ConfigError(
            f"{source}: is of a model of type {kind!r}, which is not of this family; name a checkpoint of DM-Codec, "
            "SpeechTokenizer or EnCodec"
        )
    missing = [name for name in _FIELDS if name not in values]
    if missing:
        raise ConfigError(f"{source}: missing {', '.join(missing)}; take the config.json that the model came with")
    found = {name: values.get(name, default) for name, default in _OPTIONAL.items()}
    _refuse_unsupported({**values, **found}, source)
    causal = values["use_causal_conv"]
    if not causal and found["trim_right_ratio"] != 1:
        raise ConfigError(f"{source}: trim_right_ratio is for causal convolutions; leave it at 1.0")
    fields = {ours: values[theirs] for theirs, ours in _FIELDS.items()}
    return {
        **fields,
        "semantic_dimension": values["hidden_size"],
        "bidirectional": False,
        "activation": "ELU",
        "conv_shortcut": found["use_conv_shortcut"],
        "trim_right_ratio": found["trim_right_ratio"],
        "n_q": _levels(values, source),
    }


def in_words_of_transformers(message: str) -> str:
    """Return a message of `CodecConfig`, "configuration: FIELD ...", with the field's name in transformers."""
    start, _, rest = message.partition(": ")
    ours, _, problem = rest.partition(" ")
    theirs = next((name for name, own in _FIELDS.items() if own == ours), ours)
    return f"{start}: {theirs} {problem}"


def _refuse_unsupported(values: Mapping[str, Any], source: str) -> None:
    problems = []
    if values["audio_channels"] != 1:
        problems.append(f"audio_channels is {values['audio_channels']!r}: this family is mono")
    if values["norm_type"] != "weight_norm":
        problems.append(
            f"norm_type is {values['norm_type']!r}: it normalizes over the whole of a clip, which neither streams nor "
            "runs in parts"
        )
    if values["normalize"] is not False:
        problems.append("normalize is true: codes would need the loudness of each segment beside them")
    if values["chunk_length_s"] is not None:
        problems.append(f"chunk_length_s is {values['chunk_length_s']!r}: clips run as a whole here")
    for name in ("kernel_size", "last_kernel_size"):
        if values[name] != _KERNEL_SIZE:
            problems.append(f"{name} is {values[name]!r}, not {_KERNEL_SIZE}")
    dimension = values.get("codebook_dim")
    if dimension not in (None, values["hidden_size"]):
        problems.append(f"codebook_dim is {dimension!r}, not hidden_size {values['hidden_size']!r}")
    if problems:
        others = f" (and {len(problems) - 1} more such fields)" if len(problems) > 1 else ""
        hint = "EnCodec 24 kHz (facebook/encodec_24khz) is supported, 48 kHz stereo is not"
        raise ConfigError(f"{source}: {problems[0]}{others}; {hint}")


def _levels(values: Mapping[str, Any], source: str) -> int:
    """Return the number of codebooks, as transformers computes it: those that the largest bandwidth holds."""
    try:
        hop = math.prod(values["upsampling_ratios"])
        frame_rate = math.ceil(values["sampling_rate"] / hop)
        bits = math.ceil(math.log2(values["codebook_size"]))
        levels = int(1000 * values["target_bandwidths"][-1] // (frame_rate * bits))
    except (TypeError, ValueError, IndexError, KeyError, ZeroDivisionError, OverflowError):
        raise ConfigError(
            f"{source}: upsampling_ratios, sampling_rate, codebook_size and target_bandwidths must be numbers, from "
            "which the number of codebooks follows"
        ) from None
    if levels < 1:
        raise ConfigError(
            f"{source}: target_bandwidths ends with {values['target_bandwidths'][-1]!r} kbit/s, which is less than one "
            f"codebook's {frame_rate * bits / 1000:g}"
        )
    return levels
