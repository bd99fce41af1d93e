"""The encoder in parts is the encoder: tiles, LSTM sweeps in blocks, and the rest, against the graph in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER, OUTPUT, directions, encoder_part_names, lstm_name
from dmcodec.config import CodecConfig
from dmcodec.export import export_bundle
from dmcodec.nn import DMCodec
from dmcodec.receptive_field import encoder_reach
from dmcodec.runtime import Codec
from dmcodec.sample import speech

Array = NDArray[np.float32]


def _whole(codec: Codec, waveform: Array) -> Array:
    return codec.run_graph("encoder", waveform=waveform[None, None], lengths=np.array([len(waveform)]))


def _features(codec: Codec, waveform: Array) -> Array:
    return codec.run_graph(DOWNSAMPLER, waveform=waveform[None, None], lengths=np.array([len(waveform)]))


def _tiles(codec: Codec, waveform: Array, size: int) -> Array:
    """Run the downsampler in tiles of `size` frames, each with the context that `encoder_reach` states."""
    hop, reach = codec.hop_length, encoder_reach(codec.config)
    frames = -(-len(waveform) // hop)
    parts = []
    for first in range(0, frames, size):
        last = min(frames, first + size)
        start = max(0, first * hop - reach.past_samples) // hop
        samples = waveform[start * hop : last * hop + reach.future_samples]
        parts.append(_features(codec, samples)[first - start : last - start])
    return np.concatenate(parts)


def _sweep(codec: Codec, name: str, inputs: dict[str, Array], block: int) -> Array:
    first = next(iter(inputs.values()))
    hidden = cell = np.zeros((1, *first.shape[1:]), np.float32)
    starts = list(range(0, len(first), block))
    outputs: dict[int, Any] = {}
    for start in starts[::-1] if name.endswith("backward") else starts:
        parts = {key: value[start : start + block] for key, value in inputs.items()}
        outputs[start], hidden, cell = codec.graphs.arrays(name, **parts, hidden=hidden, cell=cell)
    return np.concatenate([outputs[start] for start in starts])


def _latents(codec: Codec, features: Array, block: int) -> Array:
    inputs = {"features": features}
    for layer in range(codec.config.lstm_layers):
        inputs = {way: _sweep(codec, lstm_name(layer, way), inputs, block) for way in directions(codec.config)}
    context = encoder_reach(codec.config).output_frames
    padded = {
        key: np.pad(value, ((context, context), (0, 0), (0, 0)), mode="reflect")
        for key, value in {"features": features, **inputs}.items()
    }
    return codec.run_graph(OUTPUT, **padded)


@pytest.fixture(scope="module", params=["fp32", "fp16-weights", "fp32, one direction"])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_config: CodecConfig) -> Codec:
    precision, _, kind = request.param.partition(", ")
    n_filters = 16 if kind else 8  # the widest once: its export takes long
    values = {**tiny_config.to_dict(), "n_filters": n_filters, "bidirectional": not kind}
    path = tmp_path_factory.mktemp("parts") / "bundle"
    export_bundle(DMCodec.seeded(CodecConfig.from_dict(values)), path, precision)
    return Codec.load(path, threads=1)


def test_the_parts_are_the_encoder_and_blocks_change_no_bit(codec: Codec) -> None:
    """The last convolution sums as a matrix product does, the whole encoder's as a convolution."""
    waveform = speech(5 * 16000 + 77, 16000)
    features, whole = _features(codec, waveform), _whole(codec, waveform)
    swept = [_latents(codec, features, block) for block in (1000, 64, 7)]
    for latents in swept:
        np.testing.assert_array_equal(latents, swept[0])
        np.testing.assert_allclose(latents, whole, rtol=0, atol=2e-6 * np.abs(whole).max())


@pytest.mark.parametrize("num_samples", [64 * 320, 64 * 320 + 1, 64 * 320 + 160, 65 * 320 - 1])
def test_tiles_with_the_stated_reach_are_the_features_of_the_whole(codec: Codec, num_samples: int) -> None:
    waveform = speech(num_samples, 16000)
    whole = _features(codec, waveform)
    for size in (1, 3, 16, 63, 64):
        tiles = _tiles(codec, waveform, size)
        np.testing.assert_allclose(tiles, whole, rtol=0, atol=2e-6 * np.abs(whole).max())


@pytest.mark.parametrize("strides", [(8, 5, 4, 2), (2, 3), (7,), (2, 2, 2, 2)])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_the_reach_holds_where_samples_beyond_it_change(strides: tuple[int, ...], layers: int, causal: bool) -> None:
    import torch

    config = CodecConfig(n_filters=2, dimension=8, semantic_dimension=8, codebook_size=8, strides=strides)
    config = CodecConfig.from_dict({**config.to_dict(), "n_residual_layers": layers, "causal": causal})
    downsampler = DMCodec.seeded(config).encoder.model[:-3]
    reach, hop = encoder_reach(config), config.hop_length
    for length in (60 * hop, 60 * hop - 1, 59 * hop + 1):
        waveform = torch.from_numpy(speech(length, 16000))
        for frame in (0, 1, 30, 58, 59):
            low, high = frame * hop - reach.past_samples, reach.samples_of(frame + 1, hop)
            other = waveform.clone()
            other[: max(0, low)] += 1
            other[high:] += 1
            with torch.inference_mode():
                whole, changed = (downsampler(item[None, None])[0, :, frame] for item in (waveform, other))
            torch.testing.assert_close(changed, whole, rtol=1e-5, atol=1e-6)


def _spans(path: Path) -> set[tuple[int, int]]:
    """Return first and last byte of each weight of a graph in the file of shared weights."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    places = [
        {item.key: int(item.value) for item in tensor.external_data if item.key != "location"} for tensor in tensors
    ]
    return {(place["offset"], place["offset"] + place["length"]) for place in places if place}


@pytest.mark.parametrize("codec", ["fp32", "fp16-weights"], indirect=True)
def test_the_parts_add_no_weights_to_the_bundle(codec: Codec) -> None:
    bundle = codec.bundle
    whole = _spans(bundle.graph_path("encoder"))
    parts = set().union(*(_spans(bundle.graph_path(name)) for name in encoder_part_names(codec.config)))
    assert parts - whole, "each direction of the LSTM is half of a weight"
    assert all(any(low <= first and last <= high for low, high in whole) for first, last in parts)
