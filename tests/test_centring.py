"""Codes are those of float64, whoever sums, also where latents and codebooks have much in common."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.export import export_bundle
from dmcodec.export.reference import TorchReference
from dmcodec.export.tensorrt.rewrite import rewritten
from dmcodec.export.torch_model import torch_model
from dmcodec.nn import DMCodec
from dmcodec.nn.layers import Conv1d
from dmcodec.nn.rvq import Codebook
from dmcodec.runtime import Codec
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.sample import speech

Codes = NDArray[np.int64]
SPREAD = 0.4  # standard deviation of the entries of a seeded codebook
SMALL = CodecConfig(n_filters=4, dimension=32, semantic_dimension=24, codebook_size=64)
MEDIUM = CodecConfig(n_filters=8, dimension=64, semantic_dimension=24, codebook_size=256)


def offset_model(config: CodecConfig, spreads: float = 1000.0) -> DMCodec:
    """Seeded; its latents and the entries of level 0 have a common offset of so many times the codebook's spread."""
    model = DMCodec.seeded(config)
    offset = spreads * SPREAD * torch.randn(config.dimension, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        last = model.encoder.model[-1]
        assert isinstance(last, Conv1d)
        last.weights.bias.add_(offset)
        model.quantizer.levels[0].embed.add_(offset)
    return model


MODELS = {"offset": lambda: offset_model(SMALL), "medium": lambda: DMCodec.seeded(MEDIUM)}


@pytest.fixture(scope="module", params=["offset, fp16-weights", "medium, fp32"])
def case(request: pytest.FixtureRequest) -> tuple[DMCodec, str]:
    """A model and a precision."""
    name, precision = request.param.split(", ")
    return MODELS[name](), precision


@pytest.fixture(scope="module")
def model(case: tuple[DMCodec, str]) -> DMCodec:
    return case[0]


@pytest.fixture(scope="module")
def bundle(case: tuple[DMCodec, str], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(case[0], tmp_path_factory.mktemp("centring") / "bundle", case[1])


@pytest.fixture(scope="module")
def reference(bundle: Bundle, model: DMCodec) -> TorchReference:
    """Float64, with the weights as the bundle rounds them."""
    manifest = bundle.manifest
    if manifest.precision == "fp32":
        return TorchReference(model)
    return TorchReference(torch_model(manifest.config, {name: bundle.graph_path(name) for name in manifest.graphs}))


def assert_equal_to_float64(got: Codes, expected: Codes) -> None:
    """The bar: 99.9 % of level 0, and 98 % of all codes."""
    equal = got == expected
    assert len(np.unique(expected[0])) > 10
    assert equal[0].mean() >= 0.999, equal.mean(axis=1)
    assert equal.mean() >= 0.98, equal.mean(axis=1)


def test_codes_are_those_of_float64_on_every_batch_and_thread_count(bundle: Bundle, reference: TorchReference) -> None:
    clips = [speech(16000 * seconds - 77, 16000) for seconds in (5, 3, 2)]
    expected = [reference.quantize(reference.encode(clip)) for clip in clips]
    for threads in (1, 2, 4):
        codec = Codec.load(bundle.path, threads=threads)
        alone = [codec.encode(clip, 16000) for clip in clips]
        together = codec.encode_batch([*clips, *clips[1:]], 16000)[: len(clips)]
        for tokens in (alone, together):
            got = np.concatenate([item.codes for item in tokens], axis=1)
            assert_equal_to_float64(got, np.concatenate(expected, axis=1))


def test_the_forms_of_the_graphs_agree(bundle: Bundle, reference: TorchReference) -> None:
    """The graphs in the form for TensorRT, and torch in float32."""
    clip = speech(5 * 16000, 16000)
    expected = reference.quantize(reference.encode(clip))

    def run(name: str, **inputs: Any) -> Any:
        session = import_onnxruntime().InferenceSession(rewritten(bundle.graph_path(name)))
        return session.run(None, inputs)[0]

    latents = run("encoder", waveform=clip[None, None], lengths=np.array([len(clip)]))
    assert_equal_to_float64(run("quantizer", latents=latents)[:, 0], expected)
    manifest = bundle.manifest
    model = torch_model(manifest.config, {name: bundle.graph_path(name) for name in manifest.graphs})
    on_same_latents = model.quantizer.encode(torch.from_numpy(latents))[:, 0].numpy()
    assert_equal_to_float64(on_same_latents, expected)


def test_the_common_part_is_lost_without_centring() -> None:
    """What the bar is for: |e|^2 - 2 x.e in float32."""
    reference = TorchReference(offset_model(SMALL))
    latents = reference.encode(speech(5 * 16000, 16000)).astype(np.float32)
    entries = reference.codebooks[0]
    plain = (np.square(entries).sum(axis=1) - 2 * latents.T @ entries.T).argmin(axis=1)
    assert (plain == reference.quantize(latents)[0]).mean() < 0.6


def test_what_remains_is_the_row_less_its_entry() -> None:
    torch.manual_seed(0)
    codebook = Codebook(16, 8)
    codebook.embed.normal_().add_(1e4)
    vectors = 1e4 + torch.randn(100, 8)
    indices, rest = codebook.quantize(vectors)
    wide = copy.deepcopy(codebook).double()
    exact = vectors.double() - wide.embed[indices]
    assert torch.equal(indices, torch.cdist(vectors.double(), wide.embed).argmin(dim=1))
    assert torch.equal(rest.double(), exact)  # both differences are exact in float32
    assert torch.equal(codebook.nearest(vectors), indices)


def test_the_lowest_index_wins_a_tie() -> None:
    codebook = Codebook(6, 2)
    codebook.embed.copy_(torch.tensor([[9.0, 9.0], [1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [3.0, 1.0]]))
    assert codebook.nearest(torch.tensor([[1.0, 1.0], [-2.0, -1.0]])).tolist() == [1, 3]


def test_a_session_centres_the_entries_when_it_loads(bundle: Bundle, tmp_path: Path) -> None:
    """Nothing of the size of a codebook is computed in a call, and the file holds each codebook once."""
    options = import_onnxruntime().SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = import_onnxruntime().GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    path, config = bundle.graph_path("quantizer"), bundle.manifest.config
    import_onnxruntime().InferenceSession(str(path), options)
    optimized = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    weights = {item.name for item in optimized.initializer}
    assert not [node for node in optimized.node if node.op_type == "Sub" and set(node.input) <= weights]
    large = [item for item in onnx.load(path).graph.initializer if item.dims[:1] == [config.codebook_size]]
    assert len([item for item in large if len(item.dims) == 2]) == config.n_q
