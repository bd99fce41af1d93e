"""The encoder in its parts: convolutions in tiles, LSTM sweeps in blocks, and the last convolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER, OUTPUT, directions, lstm_name
from dmcodec.receptive_field import encoder_reach
from dmcodec.runtime.codec import Codec

Array = NDArray[np.float32]


def latents_in_blocks(codec: Codec, waveform: Array, frames: int) -> Array:
    """Return the latents [1, dimension, frames] of a waveform [samples], with tiles and blocks of `frames` frames."""
    features = _tiles(codec, waveform, frames)
    inputs = {"features": features}
    for layer in range(codec.config.lstm_layers):
        inputs = {way: _sweep(codec, lstm_name(layer, way), inputs, frames) for way in directions(codec.config)}
    reach = encoder_reach(codec.config)
    context = reach.output_frames, reach.output_future
    padded = {name: _mirrored(value, *context) for name, value in {"features": features, **inputs}.items()}
    latents: Array = codec.run_graph(OUTPUT, **padded)
    return latents


def _tiles(codec: Codec, waveform: Array, frames: int) -> Array:
    hop, reach = codec.hop_length, encoder_reach(codec.config)
    total, parts = codec.config.num_frames(len(waveform)), []
    for first in range(0, total, frames):
        last = min(total, first + frames)
        start = max(0, first * hop - reach.past_samples) // hop
        samples = waveform[start * hop : reach.samples_of(last, hop)]
        lengths = np.array([len(samples)], np.int64)
        parts.append(codec.run_graph(DOWNSAMPLER, waveform=samples[None, None], lengths=lengths))
        parts[-1] = parts[-1][first - start : last - start]
    return np.concatenate(parts)


def _sweep(codec: Codec, name: str, inputs: dict[str, Array], frames: int) -> Array:
    """Run one direction of an LSTM layer in blocks, its state handed on: [frames, 1, channels]."""
    first = next(iter(inputs.values()))
    hidden = cell = np.zeros((1, *first.shape[1:]), np.float32)
    starts = list(range(0, len(first), frames))
    outputs: dict[int, Array] = {}
    for start in starts[::-1] if name.endswith("backward") else starts:
        block = {key: value[start : start + frames] for key, value in inputs.items()}
        outputs[start], hidden, cell = codec.graphs.arrays(name, **block, hidden=hidden, cell=cell)
    return np.concatenate([outputs[start] for start in starts])


def _mirrored(values: Array, before: int, after: int) -> Array:
    """Pad [frames, 1, channels] by reflection; a clip that is too short is extended with zeros before."""
    extension = max(0, max(before, after) - len(values) + 1)
    extended = np.pad(values, ((0, extension), (0, 0), (0, 0)))
    padded = np.pad(extended, ((before, after), (0, 0), (0, 0)), mode="reflect")
    return padded[: len(padded) - extension]
