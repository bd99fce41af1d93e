"""Whisper on less than 30 seconds: its encoder wants exactly as many frames as it has positions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

SAMPLES_PER_POSITION = 320  # 10 ms of hop, halved by the second convolution
MAX_POSITIONS_PER_S = 50


@contextlib.contextmanager
def shortened(model: Any, encoder: Any, positions: int) -> Iterator[None]:
    """Leaves the encoder only its first `positions` positions (20 ms each) while the block runs.

    Positions are sinusoids from the start, so the first ones serve a shorter input as they are.

    Args:
        model: whose `config` says how many positions there are.
        encoder: of the model.
        positions: to keep; at most those it has.
    """
    from torch.nn import Embedding

    make: Any = Embedding.from_pretrained
    full, count = encoder.embed_positions, model.config.max_source_positions
    kept = make(full.weight[:positions])
    configs = {id(config): config for config in (model.config, encoder.config)}.values()
    try:
        encoder.embed_positions = kept
        for config in configs:
            config.max_source_positions = positions
        yield
    finally:
        encoder.embed_positions = full
        for config in configs:
            config.max_source_positions = count
