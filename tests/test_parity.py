"""Exported graphs match torch at all lengths and batch sizes, and a graph that differs is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

import dmcodec.export.bundle_writer
from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, OutputExistsError, ParityError
from dmcodec.export import export_bundle
from dmcodec.export.agreement import tied_frames
from dmcodec.export.graph_builder import Graph
from dmcodec.export.graphs import build_graphs
from dmcodec.export.parity import ParityCase, num_cases, require_parity
from dmcodec.nn import DMCodec
from dmcodec.precision import PRECISIONS
from dmcodec.runtime import Codec
from dmcodec.sample import speech

SMALL = CodecConfig(n_filters=2, dimension=8, semantic_dimension=6, strides=(5, 2), codebook_size=16, n_q=3)

FAMILY: dict[str, dict[str, Any]] = {
    "two residual layers": {"n_residual_layers": 2, "strides": (4, 2)},
    "strides 4 4 2": {"strides": (4, 4, 2)},
    "odd strides": {"strides": (7, 3)},
    "stride 1": {"strides": (1, 3)},
    "one stride": {"strides": (6,), "codebook_size": 2, "n_q": 1},
    "no transform": {"semantic_dimension": 8},
    "forward only": {"bidirectional": False},
    "24 kHz": {"sample_rate": 24000, "lstm_layers": 1},
    "causal, trimmed at both ends": {"causal": True, "strides": (3, 4), "trim_right_ratio": 0.5},
    "no shortcut, narrow blocks": {"conv_shortcut": False, "compress": 4, "n_filters": 4},
    "wide and dilated": {"residual_kernel_size": 5, "dilation_base": 3, "n_residual_layers": 3, "codebook_size": 100},
}


def changed(config: CodecConfig, **changes: Any) -> CodecConfig:
    return dataclasses.replace(config, **changes)


def assert_close(got: NDArray[Any], expected: torch.Tensor) -> None:
    reference = expected.numpy()
    assert got.shape == reference.shape
    assert got.dtype == reference.dtype
    np.testing.assert_allclose(got, reference, rtol=0, atol=1e-5 * max(1e-3, float(np.abs(reference).max())))


def assert_graphs_match_torch(codec: Codec, model: DMCodec, num_samples: Iterable[int]) -> None:
    """Compare each graph with torch on the same input, at each length, for batches of 1 and 3."""
    rate, n_q = codec.sample_rate, codec.n_q
    rng = np.random.default_rng(0)
    for length in num_samples:
        for batch in (1, 3):
            waveform = np.stack([speech(5000 * i + length, rate)[-length:] for i in range(1, batch + 1)])[:, None]
            waveform = waveform + rng.normal(0, 0.01, waveform.shape).astype(np.float32)
            with torch.inference_mode():
                latents = model.encoder(torch.from_numpy(waveform))
            lengths = np.full(batch, length)
            assert_close(codec.run_graph("encoder", waveform=waveform, lengths=lengths), latents)
            assert latents.shape == (batch, codec.config.dimension, codec.config.num_frames(length))
            codes = model.quantizer.encode(latents)
            got = codec.run_graph("quantizer", latents=latents.numpy())
            unlike = tied_frames(model.quantizer.codebooks().numpy(), latents.numpy(), codes.numpy(), got)
            np.testing.assert_array_equal(np.where(unlike, codes.numpy(), got), codes.numpy())
            for first, last in {(0, n_q), (0, 1), (n_q - 1, n_q), (n_q // 2, n_q)}:
                part = codes[first:last]
                with torch.inference_mode():
                    quantized = model.quantizer.decode(part, first)
                    audio = model.decoder(quantized)
                first_level = np.array(first, np.int64)
                got = codec.run_graph("dequantizer", codes=part.numpy(), first_level=first_level)
                assert_close(got, quantized)
                frames = np.full(batch, codec.config.num_frames(length))
                assert_close(codec.run_graph("decoder", latents=quantized.numpy(), lengths=frames), audio)


@pytest.mark.parametrize("name", FAMILY)
def test_every_configuration_of_the_family(tmp_path: Path, name: str) -> None:
    model = DMCodec.seeded(changed(SMALL, **FAMILY[name]), seed=3)
    bundle = export_bundle(model, tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle") == bundle
    assert bundle.manifest.config == model.config
    hop = model.config.hop_length
    lengths = {1, 2, 3, 4, 5, 6, 7, 8, hop - 1 or 1, hop, hop + 1, 2 * hop - 1, 3 * hop + 2, 4 * hop, 997}
    assert_graphs_match_torch(Codec.load(tmp_path / "bundle"), model, sorted(lengths))


def test_the_released_layout(tiny_model: DMCodec, tiny_bundle: Path) -> None:
    lengths = [1, 2, 3, 5, 6, 7, 159, 319, 320, 321, 959, 960, 961, 1281, 16000 - 1, 16000 + 123]
    assert_graphs_match_torch(Codec.load(tiny_bundle), tiny_model, lengths)


def test_weights_of_a_trained_size(tmp_path: Path) -> None:
    """Untrained codebooks are small; with entries of the latents' own size the codes use all entries."""
    model = DMCodec.seeded(SMALL)
    with torch.inference_mode():
        residual = model.encoder(torch.from_numpy(speech(32000, 16000))[None, None])[0].T
        for level in model.quantizer.levels:
            level.embed.copy_(residual[:: len(residual) // 16][:16])
            residual = residual - level.embed[level.nearest(residual)]
    export_bundle(model, tmp_path / "bundle")
    codec = Codec.load(tmp_path / "bundle")
    assert_graphs_match_torch(codec, model, [1, 999, 10000])
    assert len(np.unique(codec.encode(speech(32000, 16000), 16000).codes)) == 16


def test_the_manifest_records_what_was_measured(tiny_bundle: Path, tiny_model: DMCodec) -> None:
    parity = Bundle.open(tiny_bundle).manifest.parity
    assert len(parity["cases"]) == num_cases(tiny_model.config)
    assert {case["batch"] for case in parity["cases"]} == {1, 3}
    assert any(case["num_samples"] % 320 for case in parity["cases"])
    assert parity["latents_snr_db"] == min(case["latents_snr_db"] for case in parity["cases"]) >= 90
    assert parity["frame_agreement"] == 1.0


# Half precision


def float_types(path: Path) -> set[int]:
    types = {initializer.data_type for initializer in onnx.load(path).graph.initializer}
    return types & {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}


def test_half_precision_is_in_the_listed_graphs_and_never_in_the_quantizer(tmp_path: Path) -> None:
    model = DMCodec.seeded(SMALL)
    full = export_bundle(model, tmp_path / "fp32")
    half = export_bundle(model, tmp_path / "fp16", precision="fp16")
    assert half.manifest.precision == "fp16"
    for name, precision in (("encoder", "fp16"), ("decoder", "fp16"), ("quantizer", "fp32"), ("dequantizer", "fp32")):
        spec = half.manifest.graphs[name]
        assert spec.precision == precision
        expected = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.FLOAT
        assert float_types(half.graph_path(name)) == {expected}
        assert {tensor.dtype for tensor in (*spec.inputs, *spec.outputs)} <= {"float32", "int64"}
    for name in ("quantizer", "dequantizer"):
        assert half.manifest.graphs[name].sha256 == full.manifest.graphs[name].sha256
    assert half.manifest.weights is not None
    assert full.manifest.weights is not None
    assert half.manifest.weights.size_bytes < 0.5 * full.manifest.weights.size_bytes
    ours, theirs = (Codec.load(tmp_path / name).latents(speech(997, 16000), 16000) for name in ("fp32", "fp16"))
    assert ours.dtype == theirs.dtype == np.float32
    error = np.abs(ours - theirs).max()
    assert 0 < error < 0.01 * np.abs(ours).max()


@pytest.mark.parametrize("precision", ["int4", "fp8", "FP32", "", None])
def test_precisions_that_are_not_known_are_refused(tmp_path: Path, precision: Any) -> None:
    with pytest.raises(ArgumentError, match="precision"):
        export_bundle(DMCodec.seeded(SMALL), tmp_path / "bundle", precision=precision)
    assert list(tmp_path.iterdir()) == []


# Graphs that differ


def weight(graph: Graph, index: int, alter: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Alter the `index`th float weight with more than one value."""
    weights = [w for w in graph.model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT and w.dims]
    chosen = weights[index]
    chosen.CopyFrom(numpy_helper.from_array(alter(numpy_helper.to_array(chosen).copy()), chosen.name))


def node(graph: Graph, op_type: str, index: int = 0) -> onnx.NodeProto:
    nodes: list[onnx.NodeProto] = [node for node in graph.model.graph.node if node.op_type == op_type]
    return nodes[index]


def ignore_first_level(graph: Graph) -> None:
    for each in graph.model.graph.node:
        for position, name in enumerate(each.input):
            if name == "first_level":
                zero = numpy_helper.from_array(np.array(0, np.int64), "zero_instead")
                graph.model.graph.initializer.append(zero)
                each.input[position] = "zero_instead"


def ignore_lengths(graph: Graph) -> None:
    """Treat the padding of shorter items as a part of them."""
    model, source = graph.model.graph, graph.inputs[0].name
    model.initializer.append(numpy_helper.from_array(np.array([2], np.int64), "last_axis"))
    model.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first_axis"))
    for each in model.node:
        each.input[:] = ["all_of_it" if name == "lengths" else name for name in each.input]
    added = [
        onnx.helper.make_node("Shape", [source], ["its_shape"]),
        onnx.helper.make_node("Gather", ["its_shape", "last_axis"], ["its_length"]),
        onnx.helper.make_node("Gather", ["its_shape", "first_axis"], ["its_batch"]),
        onnx.helper.make_node("Expand", ["its_length", "its_batch"], ["all_of_it"]),
    ]
    for position, node in enumerate(added):
        model.node.insert(position, node)


def drop_state(graph: Graph) -> None:
    for each in graph.model.graph.node:
        if each.op_type == "LSTM":
            each.input[5] = each.input[6] = ""


def swap_trim(graph: Graph) -> None:
    """Cut the end of the transposed convolution of an odd stride one sample late."""
    values = {item.name: numpy_helper.to_array(item) for item in graph.model.graph.initializer}
    trims = [each for each in graph.model.graph.node if each.op_type == "Slice"]
    [trim] = [each for each in trims if values[each.input[1]][0] == 1 - values[each.input[2]][0]]
    for position, shift in ((1, -1), (2, -1)):
        moved = numpy_helper.from_array(values[trim.input[position]] + shift, f"moved_{position}")
        graph.model.graph.initializer.append(moved)
        trim.input[position] = moved.name


def swapped_gates(values: NDArray[Any]) -> NDArray[Any]:
    return np.roll(values, values.shape[1] // 4, axis=1)


DAMAGE: dict[str, tuple[str, Callable[[Graph], None]]] = {
    "encoder weight": ("encoder", lambda graph: weight(graph, 0, lambda w: w * np.float32(1.1))),
    "encoder bias": ("encoder", lambda graph: weight(graph, -1, lambda b: b + np.float32(1e-3))),
    "lstm gates in torch's order": (
        "encoder",
        lambda graph: weight(graph, lstm_index(graph), swapped_gates),
    ),
    "encoder lengths ignored": ("encoder", ignore_lengths),
    "plain encoder weight": ("encoder_plain", lambda graph: weight(graph, 0, lambda w: w * np.float32(1.1))),
    "plain decoder shifted by a sample": ("decoder_plain", swap_trim),
    "tile weight": ("encoder_downsampler", lambda graph: weight(graph, 0, lambda w: w * np.float32(1.1))),
    "plain tile weight": ("encoder_downsampler_plain", lambda graph: weight(graph, 0, lambda w: w * np.float32(1.1))),
    "decoder lengths ignored": ("decoder", ignore_lengths),
    "stream weight": ("decoder_recurrent", lambda graph: weight(graph, 0, lambda w: w * np.float32(1.1))),
    "stream state dropped": ("decoder_recurrent", drop_state),
    "stream shifted by a sample": ("decoder_upsampler", swap_trim),
    "decoder weight": ("decoder", lambda graph: weight(graph, 0, lambda w: w * np.float32(1.1))),
    "decoder shifted by a sample": ("decoder", swap_trim),
    "codebook shifted by an entry": ("quantizer", lambda graph: weight(graph, 0, lambda e: np.roll(e, 1, axis=0))),
    "norms of another codebook": ("quantizer", lambda graph: weight(graph, 1, lambda n: n * np.float32(1.5))),
    "dequantizer table shifted": ("dequantizer", lambda graph: weight(graph, 0, lambda t: np.roll(t, 1, axis=0))),
    "first level ignored": ("dequantizer", ignore_first_level),
    "not a number": ("decoder", lambda graph: weight(graph, 0, lambda w: w * np.float32("nan"))),
}


def lstm_index(graph: Graph) -> int:
    weights = [w for w in graph.model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT and w.dims]
    return [w.name for w in weights].index(node(graph, "LSTM").input[1])


@pytest.mark.parametrize(
    ("damage", "precision"),
    [
        *((damage, "fp32") for damage in DAMAGE),
        # float32 in any case, and no chain is measured that would notice
        *((damage, "fp16") for damage, (name, _) in DAMAGE.items() if name in ("quantizer", "dequantizer")),
    ],
)
def test_a_graph_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, precision: str
) -> None:
    name, alter = DAMAGE[damage]

    def damaged(*args: Any, **kwargs: Any) -> dict[str, Graph]:
        graphs = build_graphs(*args, **kwargs)
        before = graphs[name].model.SerializeToString()
        alter(graphs[name])
        assert graphs[name].model.SerializeToString() != before
        return graphs

    model = DMCodec.seeded(SMALL)
    monkeypatch.setattr(dmcodec.export.bundle_writer, "build_graphs", damaged)
    with pytest.raises(ParityError, match=r"parity: .* The bundle was not written"):
        export_bundle(model, tmp_path / "bundle", precision)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "precious").write_bytes(b"x")
    with pytest.raises(ParityError):
        export_bundle(model, tmp_path / "bundle", precision, force=True)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["bundle", "bundle/precious"]


def test_an_existing_bundle_is_replaced_only_by_force(tmp_path: Path) -> None:
    first, second = DMCodec.seeded(SMALL), DMCodec.seeded(SMALL, seed=1)
    export_bundle(first, tmp_path / "bundle")
    with pytest.raises(OutputExistsError):
        export_bundle(second, tmp_path / "bundle")
    before = Bundle.open(tmp_path / "bundle").manifest.model_id
    export_bundle(second, tmp_path / "bundle", force=True)
    assert Bundle.open(tmp_path / "bundle").manifest.model_id != before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def perfect_case(**changes: Any) -> ParityCase:
    values: dict[str, Any] = {"signal": "speech", "num_samples": 321, "batch": 1, "ties": 0}
    for field in dataclasses.fields(ParityCase):
        for ending, best in (("_snr_db", 200.0), ("_agreement", 1.0), ("_max_abs_error", 1e-5)):
            if field.name.endswith(ending):
                values[field.name] = best
    return ParityCase(**{**values, **changes})


def test_an_inaudible_error_passes_at_any_snr_but_only_of_audio() -> None:
    quiet = {f"{kind}_snr_db": 80.0 for kind in ("decoder", "stream", "chain")}
    errors = {f"{kind}_max_abs_error": 9e-7 for kind in ("decoder", "stream", "chain")}
    require_parity([perfect_case(**quiet, **errors)], "fp32")
    with pytest.raises(ParityError, match="stream_snr_db"):
        require_parity([perfect_case(**quiet, **{**errors, "stream_max_abs_error": 1.1e-6})], "fp32")
    with pytest.raises(ParityError, match="decoder_snr_db"):
        require_parity([perfect_case(**quiet, **{**errors, "decoder_max_abs_error": float("nan")})], "fp32")
    with pytest.raises(ParityError, match="latents_snr_db"):
        require_parity([perfect_case(latents_snr_db=80.0, latents_max_abs_error=0.0)], "fp32")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latents_snr_db", 10.0),
        ("latents_snr_db", float("nan")),
        ("decoder_snr_db", 10.0),
        ("decoder_snr_db", float("nan")),
        ("level0_agreement", 0.5),
        ("quantizer_agreement", 0.99),
    ],
)
def test_one_bad_figure_in_one_case_is_enough(precision: str, name: str, value: float) -> None:
    if (precision, name) in {("fp16-weights", "quantizer_agreement"), ("int8", "level0_agreement")}:
        value = float("nan")  # rounded codebooks, and rounded encoders on any signal: any share passes
    perfect, bad = perfect_case(), perfect_case(**{name: value})
    require_parity([perfect, perfect], precision)
    with pytest.raises(ParityError, match=f"{name} is .* on speech of 321 samples, batch 1"):
        require_parity([perfect, bad], precision)
