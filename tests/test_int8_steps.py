"""Precision int8 where it meets graphs in steps: they compute with the weights of the whole graphs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from dmcodec.bundle import DOWNSAMPLER_STEPS, UPSAMPLER_STEPS, Bundle
from dmcodec.export.agreement import snr_db
from dmcodec.export.graphs import build_graphs
from dmcodec.export.int8 import choice
from dmcodec.export.int8.plan import Int8Plan, Layer
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec
from dmcodec.sample import speech


def test_each_weight_is_the_same_in_all_graphs(int8_bundle: Bundle) -> None:
    """Streams and tiles, whose convolutions are matrix products, round as batches do."""
    contents: dict[str, set[bytes]] = {}
    for name in int8_bundle.manifest.graphs:
        for item in onnx.load(int8_bundle.graph_path(name)).graph.initializer:
            if (
                item.name.startswith(("encoder.", "decoder."))
                and "weight_" not in item.name
                and "bias_" not in item.name
            ):
                contents.setdefault(item.name, set()).add(numpy_helper.to_array(item).tobytes())
    assert {name for name, found in contents.items() if len(found) > 1} == set()
    assert len(contents) > 40


def test_graphs_in_steps_are_left_out_where_a_convolution_of_theirs_is_in_int8(tiny_model: DMCodec) -> None:
    graphs = build_graphs(tiny_model)
    products = choice._products(graphs)
    assert {"decoder.0.weight", "encoder.15.weight"} <= products
    assert not {"decoder.3.taps", "encoder.3.weight"} & products
    for weight, left_out in (("decoder.3.taps", {UPSAMPLER_STEPS}), ("encoder.3.weight", {DOWNSAMPLER_STEPS})):
        plan = Int8Plan({weight: Layer(weight, "Conv", None, None, 1.0)})
        assert set(graphs) - set(dict(choice._without_int8_steps(graphs, plan))) == left_out
    assert dict(choice._without_int8_steps(graphs, Int8Plan({}))) == graphs


def test_tiles_and_steps_give_what_a_batch_gives(int8_bundle: Bundle) -> None:
    codec, clip = Codec.load(int8_bundle.path, threads=1), speech(48000, 16000)
    tokens, other = codec.encode(clip, 16000), codec.encode_batch([clip, clip], 16000)[0]
    assert (tokens.codes == other.codes).mean() > 0.99  # float32 differences of 1e-7 may cross a step of an integer
    latents = codec.run_graph("dequantizer", codes=tokens.codes[:, None].astype(np.int64), first_level=np.array(0))
    whole = codec.run_graph("decoder", latents=latents, lengths=np.array([latents.shape[2]]))[0, 0, : len(clip)]
    assert snr_db(whole, codec.decode(tokens)) > 50  # likewise
