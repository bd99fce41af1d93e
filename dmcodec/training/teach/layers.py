"""Choice of the hidden states of a teacher that become its features."""

from __future__ import annotations

from typing import Any

from dmcodec.errors import ArgumentError


def check_layer(option: str, layer: str, num_states: int, model_id: str) -> None:
    """Raise ArgumentError where `layer`, the value of `option`, is not "avg", "last" or one of the model's states."""
    if layer in ("avg", "last"):
        return
    if not layer.isdecimal():
        raise ArgumentError(f"{option} {layer!r} is not known; use avg, last or a number")
    if int(layer) >= num_states:
        raise ArgumentError(f"{option} {layer}: {model_id} has hidden states 0 (the embedding) to {num_states - 1}")


def select_layer(output: Any, layer: str) -> Any:
    """Return the mean of all hidden states ("avg"), the last one, or one by number: [B, frames, width]."""
    import torch

    states = output.hidden_states
    if layer == "avg":
        return torch.stack(tuple(states)).mean(dim=0)
    return states[-1] if layer == "last" else states[int(layer)]
