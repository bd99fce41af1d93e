"""Two columns of a convolution at a time, with three products for two taps and four for three."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmcodec.bundle import TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.export import minimal_filtering
from dmcodec.export.graph_builder import Graph, GraphBuilder
from dmcodec.export.graphs import build_graphs
from dmcodec.export.int8.sessions import Session
from dmcodec.nn import DMCodec

FILTERS = {2: minimal_filtering.two_taps, 3: minimal_filtering.three_taps}


def filtered(taps: int, inputs: int, outputs: int) -> Graph:
    """Return the graph x, weight, bias -> y."""
    builder = GraphBuilder("g")
    specs = [
        TensorSpec("x", "float32", ("batch", "time", inputs)),
        TensorSpec("weight", "float32", (taps, inputs, outputs)),
        TensorSpec("bias", "float32", (outputs,)),
    ]
    result = FILTERS[taps](builder, "x", "weight", "bias", (inputs, outputs))
    builder.alias(result, "y")
    return builder.finish(specs, [TensorSpec("y", "float32", ("batch", "out", outputs))])


@given(st.sampled_from([2, 3]), st.integers(1, 3), st.integers(1, 9), st.integers(1, 70), st.integers(1, 20))
@settings(max_examples=25)
def test_the_result_is_that_of_the_convolution(taps: int, batch: int, pairs: int, inputs: int, outputs: int) -> None:
    generator = np.random.default_rng(taps)
    columns = generator.normal(size=(batch, 2 * pairs + taps - 1, inputs)).astype(np.float32)
    weight = generator.normal(size=(taps, inputs, outputs)).astype(np.float32)
    bias = generator.normal(size=outputs).astype(np.float32)
    found = Session(filtered(taps, inputs, outputs).model).all_outputs(x=columns, weight=weight, bias=bias)["y"]
    exact = columns.astype(np.float64)
    expected = bias + sum(exact[:, tap : tap + 2 * pairs] @ weight[tap] for tap in range(taps))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * (1 + np.abs(expected).max()))


@pytest.mark.parametrize(("precision", "expected"), [("fp32", 5), ("fp16-weights", 5), ("fp16", 0)])
def test_only_wide_layers_in_float32_compute_pairs(precision: str, expected: int) -> None:
    """One pair of layers is wide: of 64 channels, with 8 columns a frame."""
    config = CodecConfig(n_filters=32, strides=(2, 8), dimension=32, semantic_dimension=8, codebook_size=8, n_q=1)
    graph = build_graphs(DMCodec.seeded(config), precision)["decoder_upsampler_steps"].model.graph
    assert sum(node.op_type == "Gather" for node in graph.node) == expected
