"""Precision int8: what a layer computes, which layers are taken, and what a bundle says of them."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from dmcodec.bundle import Bundle, read_manifest
from dmcodec.cli import main
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, ExportError, InputNotFoundError, ParityError
from dmcodec.export import export_again, export_bundle
from dmcodec.export.agreement import snr_db
from dmcodec.export.int8 import choice
from dmcodec.export.int8.conv import Range
from dmcodec.export.int8.layers import channel_means, find_layers
from dmcodec.export.int8.nodes import Rewriting
from dmcodec.export.int8.plan import Int8Plan, Layer
from dmcodec.export.int8.quantization import rounded_groups, rounded_weights
from dmcodec.export.int8.selection import Budget, Network
from dmcodec.export.int8.sessions import Session
from dmcodec.export.int8.speech import speech_of_folder
from dmcodec.export.int8.storage import stored_narrow
from dmcodec.export.torch_model import torch_model
from dmcodec.nn import DMCodec
from dmcodec.precision import INT8_BUDGET
from dmcodec.runtime import Codec
from dmcodec.sample import speech

CONFIG = CodecConfig(n_filters=4, dimension=32, semantic_dimension=24, codebook_size=16, n_q=2)
HIDDEN, CHANNELS = 24, 20
Array = NDArray[np.float32]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["dmcodec", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def model_of(nodes: list[onnx.NodeProto], inputs: list[str], weights: dict[str, Array]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(name, 1, [None, None, None]) for name in inputs],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def lstm_model(channels: int = CHANNELS) -> onnx.ModelProto:
    random = rng()
    weights = {
        "l.weight_ih_0": random.normal(0, 0.3, (1, 4 * HIDDEN, channels)).astype(np.float32),
        "l.weight_hh_0": random.normal(0, 0.3, (1, 4 * HIDDEN, HIDDEN)).astype(np.float32),
        "l.bias_0": random.normal(0, 0.3, (1, 8 * HIDDEN)).astype(np.float32),
    }
    inputs = ["x", *weights, "", "hidden", "cell"]
    node = helper.make_node("LSTM", inputs, ["y", "new_hidden", "new_cell"], hidden_size=HIDDEN)
    return model_of([node], ["x", "hidden", "cell"], weights)


def plan_of(model: onnx.ModelProto, bound: Array | None) -> Int8Plan:
    [node] = model.graph.node
    source = None if bound is None else Range(-bound, bound)
    return Int8Plan({node.input[1]: Layer(node.input[1], node.op_type, source, source, 1.0)})


def states(batch: int) -> dict[str, Array]:
    return {name: np.zeros((1, batch, HIDDEN), np.float32) for name in ("hidden", "cell")}


@pytest.fixture(scope="module")
def lstms() -> tuple[Session, Session]:
    """In float32, and in int8 for inputs within 8."""
    model = lstm_model()
    ends = ["new_hidden", "new_cell"]
    return Session(model, ends), Session(plan_of(model, np.full(CHANNELS, 8, np.float32)).apply(model), ends)


def test_an_lstm_in_int8_is_near_float32(lstms: tuple[Session, Session]) -> None:
    x = rng().normal(0, 2, (60, 2, CHANNELS)).astype(np.float32)
    float32, int8 = (session.all_outputs(x=x, **states(2)) for session in lstms)
    for name in ("y", "new_hidden", "new_cell"):
        assert int8[name].shape == float32[name].shape
        assert snr_db(float32[name], int8[name]) > 35


def test_the_input_of_the_first_layer_is_finer_than_eight_bits() -> None:
    """Of inputs that take a hundredth of the range, 8 bits would leave two steps."""
    model = lstm_model()
    bound = np.full(CHANNELS, 100, np.float32)
    x = rng().normal(0, 0.3, (60, 1, CHANNELS)).astype(np.float32)
    got = Session(plan_of(model, bound).apply(model)).run(x=x, **states(1))
    assert snr_db(Session(model).run(x=x, **states(1)), got) > 20


def test_a_clip_gets_the_same_result_in_any_company_and_in_any_blocks(lstms: tuple[Session, Session]) -> None:
    int8 = lstms[1]
    x = rng().normal(0, 2, (40, 5, CHANNELS)).astype(np.float32)
    x[:, 1:] *= np.array([0.001, 0, 3, 50], np.float32)[:, None]  # the last is beyond the range
    together = int8.run(x=x, **states(5))
    for item in range(5):
        alone = int8.run(x=x[:, item : item + 1], **states(1))
        np.testing.assert_array_equal(alone, together[:, :, item : item + 1])
    outputs, state = [], states(5)
    for start, end in ((0, 1), (1, 17), (17, 40)):
        part = int8.all_outputs(x=x[start:end], **state)
        outputs.append(part["y"])
        state = {name: part[f"new_{name}"] for name in ("hidden", "cell")}
    np.testing.assert_array_equal(np.concatenate(outputs), together)


@pytest.mark.parametrize("rows", [np.ones((3, 8)), -np.ones((3, 8)), rng().normal(0, 1, (50, 33)), np.zeros((2, 4))])
def test_neighbours_add_up_in_16_bits_with_any_input(rows: NDArray[np.float64]) -> None:
    integers, scales = rounded_weights(rows.astype(np.float32))
    wide = np.pad(integers.astype(np.int64), ((0, 0), (0, 1)))
    for sign in (1, -1):
        parts = np.maximum(sign * wide, 0)
        assert 255 * (parts[:, :-1] + parts[:, 1:]).max() <= 32767
    assert np.abs(integers * scales[:, None] - rows).max() <= scales.max() / 2 + 1e-6


def conv_model(taps: int = 3) -> onnx.ModelProto:
    random = rng()
    weights = {
        "c.weight": random.normal(0, 0.2, (12, CHANNELS, taps)).astype(np.float32),
        "c.bias": random.normal(0, 1, 12).astype(np.float32),
    }
    node = helper.make_node("Conv", ["x", *weights], ["y"], kernel_shape=[taps], strides=[2], pads=[1, 1])
    return model_of([node], ["x"], weights)


def test_a_convolution_in_int8_rounds_each_channel_in_its_own_range() -> None:
    model = conv_model()
    size = np.geomspace(0.01, 30, CHANNELS, dtype=np.float32)
    x = np.maximum(rng().normal(0, 1, (2, CHANNELS, 200)) * size[:, None], -0.01).astype(np.float32)
    [layer] = find_layers(model, [x], 1.0)
    int8, expected = Session(Int8Plan({layer.weight: layer}).apply(model)), Session(model).run(x=x)
    got = int8.run(x=x)
    assert got.shape == expected.shape
    assert snr_db(expected, got) > 35
    np.testing.assert_array_equal(int8.run(x=x[1:]), got[1:])


def test_large_weights_are_stored_in_eight_bits_and_others_in_sixteen() -> None:
    random = rng()
    weights = {
        name: random.normal(0, 1, size).astype(np.float32)
        for name, size in (("big", (400, 128, 10)), ("mid", (64, 64, 2)), ("low", (8, 8, 2)))
    }
    model = model_of([helper.make_node("Identity", ["x"], ["y"])], ["x"], weights)
    rewriting = Rewriting(model)
    nodes = {name: stored_narrow(rewriting, name, eight_bits=True)[0] for name in weights}
    rewriting.add(
        "Concat", [rewriting.op("Reshape", name, rewriting.ints(-1)) for name in nodes.values()], ["y"], axis=0
    )
    rewritten = rewriting.finish()
    types = {item.name: item.data_type for item in rewritten.graph.initializer}
    assert (types["big"], types["mid"], types["low"]) == (
        onnx.TensorProto.INT8,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.FLOAT,
    )
    got = Session(rewritten).run(x=np.zeros((1, 1, 1), np.float32))
    sizes = np.cumsum([value.size for value in weights.values()])[:-1]
    snrs = [snr_db(value.ravel(), part) for value, part in zip(weights.values(), np.split(got, sizes), strict=True)]
    assert snrs[0] > 46
    assert snrs[1] > 70
    assert snrs[2] == 200
    integers, scales = rounded_groups(np.zeros((2, 16), np.float32))
    assert not integers.any()
    assert np.isfinite(1 / scales.astype(np.float64)).all()
    huge = Rewriting(
        model_of([helper.make_node("Identity", ["x"], ["y"])], ["x"], {"huge": np.full((5000,), 1e9, np.float32)})
    )
    with pytest.raises(ExportError, match="huge: values up to 1e\\+09 don't fit float16"):
        stored_narrow(huge, "huge", eight_bits=False)


def test_the_bias_makes_up_for_what_rounding_does_to_the_mean_of_the_input() -> None:
    random = rng()
    weights = {"c.weight": random.normal(0, 1, (256, 512, 4)).astype(np.float32), "c.bias": np.zeros(256, np.float32)}
    model = model_of([helper.make_node("Conv", ["x", *weights], ["y"])], ["x"], weights)
    x = (5 + random.normal(0, 0.1, (1, 512, 30))).astype(np.float32)
    expected = Session(model).run(x=x)
    means = channel_means(model, [x])
    np.testing.assert_allclose(means["c.weight"], x.mean(axis=(0, 2)), rtol=1e-5)
    [layer] = find_layers(model, [x], 1.0)
    for layers, better_db in (({}, 20), ({layer.weight: layer}, 3)):
        with_means, without = (Session(Int8Plan(layers, means=item).apply(model)).run(x=x) for item in (means, {}))
        assert snr_db(expected, with_means) > snr_db(expected, without) + better_db


def network(costs_db: dict[str, float], together: Callable[[set[str]], float] | None = None) -> Network:
    """A network whose layers cost so many dB; "lstm" is one, and the others are convolutions of equal gain."""
    layers = [Layer(f"{name}.weight", "LSTM" if name == "lstm" else "Conv", None, None, 100.0) for name in costs_db]

    class Fake(Network):
        def _with(self, layers, stores_narrow=True):  # type: ignore[no-untyped-def]
            return {layer.weight.removesuffix(".weight") for layer in layers}

    def measure(names: object) -> tuple[float, float, float]:
        chosen = names if isinstance(names, set) else set()
        if together is not None and len(chosen) > 1:
            return together(chosen), 1.0, 1.0
        noise = sum(10 ** (-costs_db[name] / 10) for name in chosen)
        return (-10 * float(np.log10(noise)) if noise else 200.0), 1.0, 1.0

    empty = model_of([helper.make_node("Identity", ["x"], ["y"])], ["x"], {})
    return Fake(empty, layers, measure, Budget(40.0), {})


def test_layers_are_taken_by_what_they_cost_until_the_budget_is_used() -> None:
    taken, trials = network({"a": 41.0, "lstm": 50.0, "b": 47.0, "c": 30.0, "d": 46.0}).choose(lambda *_: None)
    assert [layer.weight for layer in taken] == ["lstm.weight", "b.weight", "d.weight"]
    assert {trial.layer: (trial.taken, round(trial.snr_db)) for trial in trials} == {
        "lstm.weight": (True, 50), "b": (True, 47), "d": (True, 46), "a": (False, 41), "c": (False, 30),
    }  # fmt: skip


def test_layers_are_left_out_again_where_together_they_cost_more_than_alone() -> None:
    costs = {"lstm": 60.0, "b": 55.0, "d": 50.0}
    taken, _ = network(costs, lambda chosen: 39.0 if "d" in chosen else 45.0).choose(lambda *_: None)
    assert [layer.weight for layer in taken] == ["lstm.weight", "b.weight"]
    assert network(costs, lambda chosen: 39.0).choose(lambda *_: None)[0] == taken[:1]


def figures(**changes: float) -> dict[str, float]:
    best = {"decoder_snr_db": 40.0, "level0_agreement": 0.98, "stoi": 0.901, "stoi_fp32": 0.903}
    return {**best, "pesq_wb": 2.0, "pesq_wb_fp32": 2.02, "pesq_wb_decoder": 2.01, **changes}


def test_figures_outside_the_budget_are_refused() -> None:
    choice._require_budget(figures(), INT8_BUDGET)
    for name, value, words in (
        ("decoder_snr_db", 39.9, "decoder_snr_db is 39.9; int8 needs at least 40"),
        ("decoder_snr_db", float("nan"), "decoder_snr_db is nan"),
        ("level0_agreement", 0.97, "level0_agreement is 0.97"),
        ("stoi", 0.89, "round-trip STOI is 0.0130 below that of float32; int8 may lose 0.003"),
        ("pesq_wb", 1.98, "round-trip PESQ-WB is 0.0400 below"),
        ("pesq_wb_decoder", 1.99, "decoder's PESQ-WB is 0.0300 below"),
    ):
        with pytest.raises(ParityError, match=words):
            choice._require_budget(figures(**{name: value}), INT8_BUDGET)
    without_pesq = {name: value for name, value in figures().items() if "pesq" not in name}
    choice._require_budget(without_pesq, INT8_BUDGET)


@pytest.fixture(scope="module")
def bundle(int8_bundle: Bundle) -> Bundle:
    return int8_bundle


def test_the_manifest_says_what_is_in_int8_and_what_it_costs(bundle: Bundle) -> None:
    manifest = read_manifest(bundle.path)
    assert (manifest.precision, manifest.arithmetic) == ("int8", "int8")
    kinds = {name: spec.precision for name, spec in manifest.graphs.items()}
    for name in (
        "encoder",
        "encoder_plain",
        "decoder",
        "decoder_plain",
        "decoder_recurrent",
        "encoder_lstm_1_backward",
    ):
        assert kinds[name] == "int8"
        assert "DynamicQuantizeLSTM" in {node.op_type for node in onnx.load(bundle.graph_path(name)).graph.node}
    assert (kinds["quantizer"], kinds["dequantizer"]) == ("fp32", "fp32")
    record = manifest.int8
    assert {"encoder.13.0", "encoder.13.1"} <= set(record["encoder_layers"])
    assert {"decoder.1.0", "decoder.1.1"} <= set(record["decoder_layers"])
    held_out, budget = record["held_out"], record["budget"]
    assert held_out["decoder_snr_db"] >= budget["decoder_snr_db"] == 40
    assert 1 >= held_out["level0_agreement"] >= budget["level0_agreement"] == 0.98
    assert abs(held_out["stoi"] - held_out["stoi_fp32"]) <= budget["stoi_loss"] == 0.003
    for side in ("encoder", "decoder"):
        taken = [trial["layer"] for trial in record["trials"][side] if trial["taken"]]
        assert taken == record[f"{side}_layers"]
    assert (record["tried_s"], record["held_out_s"]) == (6.0, 4.0)


def test_weights_are_stored_in_16_bits_where_8_are_outside_the_budget() -> None:
    class Networks:
        def held_out(self, plan: Int8Plan) -> dict[str, float]:
            return figures(level0_agreement=0.97 if plan.eight_bits else found)

    plans, found = [Int8Plan({}), Int8Plan({}, eight_bits=False)], 0.99
    assert choice._smallest(Networks(), plans)[0] is plans[1]  # type: ignore[arg-type]
    found = 0.9
    with pytest.raises(ParityError, match=r"level0_agreement is 0\.9;"):
        choice._smallest(Networks(), plans)  # type: ignore[arg-type]


def test_tokens_do_not_depend_on_company(bundle: Bundle) -> None:
    codec = Codec.load(bundle.path, threads=1)
    clips = [speech(size, 16000) for size in (16000, 5000, 8123)]
    alone = [codec.encode(clip, 16000) for clip in clips]
    for one, other in zip(alone, codec.encode_batch(clips, 16000), strict=True):
        np.testing.assert_array_equal(one.codes, other.codes)
    tokens = alone[0]
    with codec.stream_decoder() as stream:
        parts = [stream.push(tokens.codes[:, start : start + 7]) for start in range(0, tokens.num_frames, 7)]
        parts.append(stream.finish())
    assert snr_db(codec.decode(tokens), np.concatenate(parts)) > 60


def test_info_shows_the_figures(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "info", "--bundle", str(bundle.path)) == 0
    shown = capsys.readouterr().out
    for words in ("encoder.13.0", "(at least 98.00 %)", "(float32 0."):
        assert words in shown
    assert command(monkeypatch, "info", "--bundle", str(bundle.path), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["int8"]["held_out"] == read_manifest(bundle.path).int8["held_out"]


def test_int8_is_no_source_of_weights(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"its weights are rounded to int8, .* name the checkpoint"):
        torch_model(CONFIG, {name: bundle.graph_path(name) for name in bundle.manifest.graphs})
    with pytest.raises(ExportError, match="rounded to int8"):
        export_again(bundle, tmp_path / "new")
    with pytest.raises(ArgumentError, match="is int8, and keeps its weights"):
        export_again(bundle, tmp_path / "new", precision="fp32")
    assert not (tmp_path / "new").exists()


def test_what_can_not_run_int8_refuses_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = "int8 graphs run in ONNX Runtime on a CPU, .* --precision fp16"
    with pytest.raises(ArgumentError, match=refusal):
        Codec.load(bundle.path, provider="cuda")
    with pytest.raises(ArgumentError, match=refusal):
        Codec.load(bundle.path, backend="tensorrt")
    path, out = str(bundle.path), str(tmp_path / "out")

    def fails(*arguments: str) -> str:
        assert command(monkeypatch, *arguments) == 2
        return capsys.readouterr().err

    assert "not in TensorRT" in fails("export", "--format", "trt", "--flavour", "onnxruntime", "--bundle", path)
    assert "kind cpu" in fails("export", "--format", "triton", "--bundle", path, "--out", out)
    seeded = ("--seed", "1", "--precision", "int8", "--out", out)
    assert "take --platform onnxruntime and --kind cpu" in fails("export", "--format", "triton", *seeded)
    assert "--precision fp16" in fails("export", "--format", "trt", *seeded)


def test_calibration_is_checked_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeded = ("export", "--seed", "1", "--out", str(tmp_path / "new"))
    assert command(monkeypatch, *seeded, "--calibration", str(tmp_path)) == 2
    assert "--precision int8; add it" in capsys.readouterr().err
    assert command(monkeypatch, *seeded, "--precision", "int4") == 2
    assert "use fp32, fp16" in capsys.readouterr().err
    model = DMCodec.seeded(CONFIG)
    with pytest.raises(ArgumentError, match="--calibration is for --precision int8, not fp32"):
        export_bundle(model, tmp_path / "new", "fp32", calibration=tmp_path)
    with pytest.raises(InputNotFoundError):
        export_bundle(model, tmp_path / "new", "int8", calibration=tmp_path / "none")
    soundfile.write(tmp_path / "one.wav", speech(16000, 16000), 16000)
    soundfile.write(tmp_path / "short.wav", speech(1000, 16000), 16000)
    with pytest.raises(ArgumentError, match=r"needs at least two clips of 0\.5 s"):
        export_bundle(model, tmp_path / "new", "int8", calibration=tmp_path)
    assert not (tmp_path / "new").exists()


def test_every_fourth_clip_of_a_folder_is_held_out(tmp_path: Path) -> None:
    for index in range(6):
        soundfile.write(tmp_path / f"{index}.wav", speech(12000 + index, 16000), 16000)
    clips = speech_of_folder(tmp_path, CONFIG)
    assert [len(clip) for clip in clips.tried] == [12000, 12001, 12002, 12004, 12005]
    assert [len(clip) for clip in clips.held_out] == [12003]
    assert max(float(np.abs(clip).max()) for clip in clips.loud()) == pytest.approx(0.95)
    assert dataclasses.is_dataclass(clips)
