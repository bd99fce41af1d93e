"""An LSTM as one Scan: the same function as ONNX's LSTM, with and without lengths and states, in both precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from dmcodec.benchmarks.verify.conformance_suite import suite_folder
from dmcodec.bundle import Bundle, encoder_part_names
from dmcodec.errors import ExportError
from dmcodec.export.agreement import snr_db
from dmcodec.export.tensorrt.rewrite import rewrite, rewritten
from dmcodec.runtime import Codec, default_bundle_path
from dmcodec.runtime.onnxruntime_import import import_onnxruntime

SIZE, WIDTH, STEPS, BATCH = 6, 5, 9, 3
LEAST_SNR_DB = 110.0


def run(model: bytes, inputs: dict[str, Any]) -> list[NDArray[Any]]:
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    outputs: list[NDArray[Any]] = import_onnxruntime().InferenceSession(model, options).run(None, inputs)
    return outputs


def lstm(
    direction: str, half: bool = False, lengths: bool = False, states: bool = False, **more: Any
) -> onnx.ModelProto:
    """One LSTM with random weights. With `states`, these are inputs and outputs."""
    rng = np.random.default_rng(3)
    ways, dtype = 2 if direction == "bidirectional" else 1, np.float16 if half else np.float32
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    shapes = {"W": (ways, 4 * SIZE, WIDTH), "R": (ways, 4 * SIZE, SIZE), "B": (ways, 8 * SIZE)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.5, shape).astype(dtype), name) for name, shape in shapes.items()]
    tensor = helper.make_tensor_value_info
    inputs = [tensor("X", kind, ["steps", "batch", WIDTH])]
    names = ["X", "W", "R", "B", "", "", ""]
    if lengths:
        names[4] = "lengths"
        inputs.append(tensor("lengths", TensorProto.INT32, ["batch"]))
    outputs: dict[str, list[Any]] = {"Y": ["steps", ways, "batch", SIZE]}
    if states:
        names[5:] = ["hidden", "cell"]
        inputs += [tensor(name, kind, [ways, "batch", SIZE]) for name in names[5:]]
        outputs |= {name: [ways, "batch", SIZE] for name in ("last_hidden", "last_cell")}
    node = helper.make_node("LSTM", names, list(outputs), name="lstm", hidden_size=SIZE, direction=direction, **more)
    graph = helper.make_graph(
        [node], "g", inputs, [tensor(name, kind, axes) for name, axes in outputs.items()], weights
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("lengths", "states"), [(False, False), (True, False), (False, True)])
def test_it_is_the_same_function(direction: str, half: bool, lengths: bool, states: bool) -> None:
    model, rng = lstm(direction, half, lengths, states), np.random.default_rng(5)
    sizes = {"steps": STEPS, "batch": BATCH}
    inputs: dict[str, Any] = {
        item.name: rng.normal(
            0, 1, [axis.dim_value or sizes[axis.dim_param] for axis in item.type.tensor_type.shape.dim]
        )
        for item in model.graph.input
    }
    inputs = {name: value.astype(np.float16 if half else np.float32) for name, value in inputs.items()}
    counts = [STEPS, 4, 1] if lengths else [STEPS] * BATCH
    if lengths:
        inputs["lengths"] = np.array(counts, np.int32)
    before = model.SerializeToString()
    rewrite(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    assert "LSTM" not in {node.op_type for node in model.graph.node}
    for want, got in zip(run(before, inputs), run(model.SerializeToString(), inputs), strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        if want.ndim == 4:
            want, got = (
                np.concatenate([item[:count, :, row] for row, count in enumerate(counts)]) for item in (want, got)
            )
        assert snr_db(want, got) > (60 if half else LEAST_SNR_DB)


@pytest.mark.parametrize(
    "change",
    [
        {"clip": 3.0},
        {"activations": ["Sigmoid", "Tanh", "Relu"]},
        {"input_forget": 1},
    ],
)
def test_an_lstm_of_another_kind_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match="lstm: no TensorRT form for this LSTM"):
        rewrite(lstm("forward", **change))


def test_states_at_the_ends_of_items_are_refused() -> None:
    with pytest.raises(ExportError, match="lstm: no TensorRT form"):
        rewrite(lstm("forward", lengths=True, states=True))
    peepholes = lstm("forward")
    peepholes.graph.node[0].input.append("P")
    with pytest.raises(ExportError, match="lstm: no TensorRT form"):
        rewrite(peepholes)


def test_scalars_stay_scalars(tiny_bundle: Path) -> None:
    """`Range` takes scalars, and nothing else is valid ONNX."""
    model = onnx.load_model_from_string(rewritten(tiny_bundle / "encoder.onnx"))
    ranges = [node for node in model.graph.node if node.op_type == "Range"]
    dims = {item.name: list(item.dims) for item in model.graph.initializer}
    scalars = {node.input[0] for node in ranges} | {node.input[2] for node in ranges}
    assert ranges
    assert [dims[name] for name in scalars] == [[]] * len(scalars)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    ranks = {item.name: len(item.type.tensor_type.shape.dim) for item in inferred.graph.value_info}
    assert [ranks[node.input[1]] for node in ranges] == [0] * len(ranges)


@pytest.mark.parametrize(
    "name", ["decoder_recurrent", "decoder_upsampler", "encoder_downsampler", "lstms", "encoder_output"]
)
def test_the_graphs_of_streams_are_the_same_functions(name: str, tiny_bundle: Path) -> None:
    """With states that are not zero, and at several lengths."""
    manifest, rng = Bundle.open(tiny_bundle).manifest, np.random.default_rng(1)
    names = [item for item in encoder_part_names(manifest.config) if "lstm" in item] if name == "lstms" else [name]
    for graph in names:
        spec = manifest.graphs[graph]
        for sizes in ({"batch": 1, "frames": 5, "samples": 1700}, {"batch": 3, "frames": 40, "samples": 3200}):
            sizes["padded_frames"] = sizes["frames"] + 6
            inputs: dict[str, Any] = {
                item.name: rng.normal(0, 0.5, [sizes[axis] if isinstance(axis, str) else axis for axis in item.axes])
                for item in spec.inputs
            }
            inputs = {key: value.astype(np.float32) for key, value in inputs.items()}
            if "lengths" in inputs:
                inputs["lengths"] = np.array([sizes["samples"]] * sizes["batch"])
            path = tiny_bundle / spec.file
            whole = onnx.load(path).SerializeToString()
            for want, got in zip(run(whole, inputs), run(rewritten(path), inputs), strict=True):
                assert snr_db(want, got) > LEAST_SNR_DB


def test_the_trained_codec_gives_the_codes_of_the_conformance_suite() -> None:
    codec = Codec.load(threads=1)
    encoder = rewritten(codec.bundle.graph_path("encoder"))
    clips = [path for path in sorted(suite_folder().glob("*.flac")) if soundfile.info(path).frames > 1000]
    waveforms = [soundfile.read(path, dtype="float32")[0] for path in clips]
    lengths = np.array([len(waveform) for waveform in waveforms])
    batch = np.zeros((len(waveforms), 1, lengths.max()), np.float32)
    for row, waveform in enumerate(waveforms):
        batch[row, 0, : len(waveform)] = waveform
    latents = run(encoder, {"waveform": batch, "lengths": lengths})[0]
    codes = codec.graphs.arrays("quantizer", latents=latents)[0]
    right = codec.graphs.arrays("encoder", waveform=batch, lengths=lengths)[0]
    assert default_bundle_path() == codec.bundle.path
    for row, path in enumerate(clips):
        expected = np.load(path.with_suffix(".codes.npy"))
        frames = expected.shape[1]
        np.testing.assert_array_equal(codes[:, row, :frames], expected)
        assert snr_db(right[row, :, :frames], latents[row, :, :frames]) > LEAST_SNR_DB
