"""Precision fp16-weights: half the size, float32 arithmetic, and the torch model read back from a bundle."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from dmcodec.benchmarks.codecs.torch import load_model
from dmcodec.benchmarks.verify import VerifyOptions, run_verify
from dmcodec.bundle import GRAPH_NAMES, Bundle, write_manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import ExportError, MissingDependencyError, ParityError
from dmcodec.export import Source, bundle_writer, export_bundle
from dmcodec.export.tensorrt.rewrite import rewritten
from dmcodec.export.torch_model import torch_model
from dmcodec.export.weights import codebook_centre, read_codebooks, read_weights, stored_codebooks
from dmcodec.nn import DMCodec
from dmcodec.runtime import Codec
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.sample import speech

CONFIG = CodecConfig(n_filters=4, dimension=32, semantic_dimension=24, codebook_size=256, n_q=3)


@pytest.fixture(scope="module")
def model() -> DMCodec:
    return DMCodec.seeded(CONFIG, 3)


@pytest.fixture(scope="module")
def bundle(model: DMCodec, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export_bundle(model, tmp_path_factory.mktemp("half") / "bundle", "fp16-weights", Source(seed=3))


def graphs_of(bundle: Bundle) -> dict[str, Path]:
    return {name: bundle.graph_path(name) for name in GRAPH_NAMES}


def test_weights_are_half_and_arithmetic_is_not(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.precision, manifest.arithmetic) == ("fp16-weights", "fp32")
    assert {spec.precision for spec in manifest.graphs.values()} == {"fp32"}
    for name, path in graphs_of(bundle).items():
        kept = [item for item in onnx.load(path).graph.initializer if item.data_type == onnx.TensorProto.FLOAT]
        large = {item.name for item in kept if len(item.raw_data) >= 16384}
        assert large == ({"codebook_0"} if "quantizer" in name else set())
    assert manifest.parity["latents_snr_db"] > 50
    assert manifest.parity["level0_agreement"] > 0.9
    assert manifest.parity["thresholds"]["latents_snr_db"] == 40
    values = Codec.load(bundle.path, threads=1).latents(speech(997, 16000), 16000)
    assert values.dtype == np.float32


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_the_casts_are_gone_once_a_graph_is_loaded(bundle: Bundle, name: str, tmp_path: Path) -> None:
    """The graph is therefore as fast as one with float32 weights."""
    options = import_onnxruntime().SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = import_onnxruntime().GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    import_onnxruntime().InferenceSession(str(bundle.graph_path(name)), options)
    graph = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph
    assert onnx.TensorProto.FLOAT16 not in {item.data_type for item in graph.initializer}
    floats = [item for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(item.dims)) for item in floats) > 1000


@pytest.mark.parametrize("name", GRAPH_NAMES)
def test_the_form_for_tensorrt_has_float32_weights(bundle: Bundle, name: str) -> None:
    graph = onnx.load_model_from_string(rewritten(bundle.graph_path(name))).graph
    assert onnx.TensorProto.FLOAT16 not in {item.data_type for item in graph.initializer}
    assert all(item.data_location != onnx.TensorProto.EXTERNAL for item in graph.initializer)


def test_the_form_for_tensorrt_is_the_same_function(bundle: Bundle) -> None:
    inputs = {"waveform": speech(900, 16000)[None, None], "lengths": np.array([900])}
    models = (str(bundle.graph_path("encoder")), rewritten(bundle.graph_path("encoder")))
    want, got = (import_onnxruntime().InferenceSession(item).run(None, inputs)[0] for item in models)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-6)


def test_both_rvq_graphs_hold_the_same_rounded_entries(bundle: Bundle, model: DMCodec) -> None:
    trained = model.quantizer.codebooks().numpy()
    expected = stored_codebooks(trained, "fp16-weights")
    np.testing.assert_array_equal(expected[0], trained[0])  # level 0 as it was
    assert (expected[1:] != trained[1:]).mean() > 0.9
    codec = Codec.load(bundle.path, threads=1)
    every = np.arange(CONFIG.codebook_size)[None, None]
    for level, entries in enumerate(expected):
        got = codec.graphs.arrays("dequantizer", codes=every, first_level=np.array(level))[0]
        np.testing.assert_array_equal(got[0].T, entries)
    # An entry of level 0 is quantized to itself and leaves nothing.
    codes = codec.graphs.arrays("quantizer", latents=np.ascontiguousarray(expected[0].T[None]))[0]
    np.testing.assert_array_equal(codes[0, 0], np.arange(CONFIG.codebook_size))


def test_the_error_of_rounding_does_not_hide_a_wrong_graph(
    model: DMCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(config: CodecConfig, graphs: Mapping[str, Path]) -> DMCodec:
        found = torch_model(config, graphs)
        with torch.no_grad():
            for parameter in found.decoder.parameters():
                parameter.mul_(1.0005)  # some 60 dB: far above the thresholds of fp16
        return found

    monkeypatch.setattr(bundle_writer, "torch_model", other)
    with pytest.raises(ParityError, match="fp32 needs at least 90"):
        export_bundle(model, tmp_path / "bundle", "fp16-weights")
    assert not (tmp_path / "bundle").exists()


def test_the_torch_model_of_a_float32_bundle_is_the_one_exported(tiny_bundle: Path, tiny_model: DMCodec) -> None:
    opened = Bundle.open(tiny_bundle)
    found = torch_model(opened.manifest.config, graphs_of(opened))
    waveform = torch.from_numpy(speech(5000, 16000))[None, None]
    codes = found.encode(waveform)
    assert torch.equal(codes, tiny_model.encode(waveform))
    torch.testing.assert_close(found.decode(codes), tiny_model.decode(codes), rtol=0, atol=1e-5)


def test_the_torch_peer_without_a_seed_or_checkpoint_has_the_bundles_weights(bundle: Bundle) -> None:
    provenance = {**bundle.manifest.provenance, "seed": None}
    unseeded = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, provenance=provenance))
    codec = Codec.load(bundle.path, threads=1)
    waveform = speech(4000, 16000)
    found = load_model(unseeded, None, None).encode(torch.from_numpy(waveform)[None, None])
    np.testing.assert_array_equal(found[:, 0].numpy(), codec.encode(waveform, 16000).codes)


def test_the_torch_peer_needs_onnx_only_for_the_bundles_weights(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dmcodec.export.torch_model", None)  # what imports onnx
    assert load_model(bundle, None, None).config == bundle.manifest.config
    provenance = {**bundle.manifest.provenance, "seed": None}
    unseeded = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, provenance=provenance))
    with pytest.raises(MissingDependencyError, match="the torch peer needs"):
        load_model(unseeded, None, None)


def test_verify_demands_float32s_figures_where_the_weights_are_the_same(bundle: Bundle) -> None:
    against_graphs = run_verify(bundle.path, VerifyOptions(threads=1))
    assert against_graphs.passed, against_graphs.problems
    assert (against_graphs.precision, against_graphs.thresholds_of) == ("fp16-weights", "fp32")
    against_seed = run_verify(bundle.path, VerifyOptions(against="torch", threads=1))
    assert against_seed.passed, against_seed.problems
    assert against_seed.thresholds_of == "fp16-weights"
    assert json.loads(json.dumps(against_seed.to_dict()))["thresholds"]["latents_snr_db"] == 40


def test_verify_against_torch_of_the_bundles_own_weights(bundle: Bundle) -> None:
    manifest = bundle.manifest
    write_manifest(bundle.path, dataclasses.replace(manifest, provenance={**manifest.provenance, "seed": None}))
    try:
        result = run_verify(bundle.path, VerifyOptions(against="torch", threads=1))
    finally:
        write_manifest(bundle.path, manifest)
    assert result.passed, result.problems
    assert (result.reference, result.thresholds_of) == ("torch", "fp32")


def test_squared_norms_of_large_codebooks_stay_exact(tmp_path: Path) -> None:
    """From 4096 entries on they are as large as weights that are rounded; and they may be beyond half precision."""
    config = dataclasses.replace(CONFIG, dimension=16, semantic_dimension=16, codebook_size=4096, n_q=2)
    model = DMCodec.seeded(config)
    for level in model.quantizer.levels:
        level.embed.mul_(150)
    bundle = export_bundle(model, tmp_path / "bundle", "fp16-weights")
    found = read_weights(bundle.graph_path("quantizer"))
    codebooks = read_codebooks(bundle.graph_path("quantizer"), config).astype(np.float64)
    for number, entries in enumerate(codebooks):
        norms = found[f"codebook_{number}.squared_norms"]
        assert norms.dtype == np.float32
        centred = entries - codebook_centre(entries.astype(np.float32))
        np.testing.assert_array_equal(
            norms, np.square(centred.astype(np.float32).astype(np.float64)).sum(axis=1).astype(np.float32)
        )


def test_entries_beyond_half_precision_are_an_error() -> None:
    with pytest.raises(ExportError, match=r"entries up to 70000 .*--precision fp32"):
        stored_codebooks(np.full((2, 4, 3), 70000.0, np.float32), "fp16-weights")
