"""The plain form of graphs, for clips that fill the batch; and transposed convolutions as convolutions of two taps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from dmcodec.bundle import DOWNSAMPLER, Bundle, TensorSpec, encoder_part_names
from dmcodec.config import CodecConfig
from dmcodec.errors import ExportError
from dmcodec.export.graph_builder import GraphBuilder
from dmcodec.export.graphs import build_graphs
from dmcodec.export.layers import add_layers
from dmcodec.export.padding import Signal
from dmcodec.export.weights import from_two_taps, two_taps
from dmcodec.nn import DMCodec
from dmcodec.nn import layers as nn_layers
from dmcodec.nn.layers import ConvTranspose1d
from dmcodec.plain_form import HAVE_PLAIN_FORMS, least_plain_frames, least_plain_size, plain_name
from dmcodec.runtime import Codec
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.onnxruntime_import import import_onnxruntime
from dmcodec.runtime.plain import fitting_form
from dmcodec.runtime.stream_decoder import StreamDecoder
from dmcodec.sample import speech

MOVES = {"GatherElements", "ScatterElements", "ConvTranspose", "Where"}


def op_types(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


class Recording:
    """A backend that notes which graphs run."""

    def __init__(self) -> None:
        self._backend, self.ran = OnnxRuntimeBackend("cpu", 1), list[str]()
        self.name, self.provider, self.version, self.threads = "onnxruntime", "cpu", "1", 1
        self.to_array = self._backend.to_array
        self.single_threaded_streams = False

    def single_threaded(self) -> None:
        return None

    def load(self, path: Path, spec: Any) -> Any:
        runner, ran = self._backend.load(path, spec), self.ran

        class Runner:
            def run(self, inputs: Any) -> Any:
                ran.append(path.stem)
                return runner.run(inputs)

        return Runner()


@pytest.mark.parametrize("stride", [2, 3, 5, 8])
@pytest.mark.parametrize("plain", [False, True])
def test_two_taps_are_the_transposed_convolution(stride: int, plain: bool) -> None:
    """For odd and even strides, whose trims are equal or not, and at each item's own end."""
    torch.manual_seed(stride)
    layer = ConvTranspose1d(6, 4, 2 * stride, stride)
    builder = GraphBuilder("g")
    x, lengths = TensorSpec("x", "float32", ("batch", 6, "time")), TensorSpec("lengths", "int64", ("batch",))
    y = TensorSpec("y", "float32", ("batch", 4, "out"))
    signal = add_layers(builder, torch.nn.Sequential(layer), Signal("x", None if plain else "lengths"), "d")
    builder.alias(builder.op("Identity", signal.tensor), "y")
    model = builder.finish([x] if plain else [x, lengths], [y]).model
    counts = [7, 7, 7] if plain else [7, 1, 4]
    values = np.random.default_rng(0).normal(size=(3, 6, 7)).astype(np.float32)
    inputs: dict[str, Any] = {"x": values} if plain else {"x": values, "lengths": np.array(counts)}
    got = import_onnxruntime().InferenceSession(model.SerializeToString()).run(None, inputs)[0]
    assert got.shape == (3, 4, 7 * stride)
    for row, count in enumerate(counts):
        with torch.inference_mode():
            want = layer(torch.from_numpy(values[row : row + 1, :, :count]))[0].numpy()
        np.testing.assert_allclose(got[row, :, : count * stride], want, rtol=0, atol=1e-6)


def test_the_form_of_two_taps_can_be_undone() -> None:
    weight = np.random.default_rng(0).normal(size=(6, 4, 10)).astype(np.float32)
    np.testing.assert_array_equal(from_two_taps(two_taps(weight, 5), 5), weight)


def test_another_kernel_is_refused() -> None:
    with pytest.raises(ExportError, match=r"d\.0: a transposed convolution of stride 4 has kernel 6"):
        add_layers(GraphBuilder("g"), torch.nn.Sequential(ConvTranspose1d(2, 2, 6, 4)), Signal("x", None), "d")


def test_no_graph_has_a_transposed_convolution_and_plain_ones_place_nothing(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    for name, spec in manifest.graphs.items():
        found = op_types(tiny_bundle / spec.file) & MOVES
        takes_lengths = "lengths" in {tensor.name for tensor in spec.inputs}
        assert "ConvTranspose" not in found
        assert bool(found) == takes_lengths, name
    for name in HAVE_PLAIN_FORMS:
        spec, plain = manifest.graphs[name], manifest.graphs[plain_name(name)]
        assert plain.outputs == spec.outputs
        assert [tensor.name for tensor in plain.inputs] == [HAVE_PLAIN_FORMS[name]]
        assert plain.size_bytes < spec.size_bytes


def test_plain_forms_add_no_weights(tiny_bundle: Path, tiny_model: DMCodec) -> None:
    graphs = build_graphs(tiny_model)
    for name in HAVE_PLAIN_FORMS:
        stored = [{item.raw_data for item in graphs[form].model.graph.initializer if len(item.raw_data) >= 1024}
                  for form in (name, plain_name(name))]  # fmt: skip
        assert stored[0] == stored[1]
    weights = Bundle.open(tiny_bundle).manifest.weights
    assert weights is not None
    floats = sum(parameter.numel() for parameter in tiny_model.parameters())
    assert weights.size_bytes < 4 * floats * 1.1


@pytest.mark.parametrize("batch", [1, 3])
def test_both_forms_are_the_same_function_from_the_least_size_on(tiny_codec: Codec, batch: int) -> None:
    config, rng = tiny_codec.config, np.random.default_rng(2)
    backend, bundle = OnnxRuntimeBackend("cpu", 1), tiny_codec.bundle
    for name, tensor in HAVE_PLAIN_FORMS.items():
        forms = [
            backend.load(bundle.graph_path(form), bundle.manifest.graphs[form]) for form in (name, plain_name(name))
        ]
        least = least_plain_size(config, name)
        channels = config.dimension if name == "decoder" else 1
        for size in (least, least + 1, least + 7, least + 319, least + 5000 // (20 if name == "decoder" else 1)):
            values = rng.normal(0, 0.3, (batch, channels, size)).astype(np.float32)
            want = forms[0].run({tensor: values, "lengths": np.full(batch, size)})[0]
            got = forms[1].run({tensor: values})[0]
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())


@pytest.mark.parametrize(
    ("values", "frames"),
    [
        ({}, {"encoder": 4, "decoder": 4, DOWNSAMPLER: 3, "decoder_upsampler": 1}),
        ({"strides": (2, 2), "n_residual_layers": 3}, {"encoder": 4, "decoder": 4, "decoder_upsampler": 3}),
        ({"strides": (7,)}, {"encoder": 4, "decoder": 4, "decoder_upsampler": 1}),
    ],
)
def test_the_least_size_follows_from_the_configuration(values: dict[str, Any], frames: dict[str, int]) -> None:
    """One frame less does not run, or would be another function."""
    config = CodecConfig.from_dict({**CodecConfig(n_filters=2, dimension=8, semantic_dimension=8).to_dict(), **values})
    for name, expected in frames.items():
        assert least_plain_frames(config, name) == expected
        for fits in (True, False):
            count = expected if fits else expected - 1
            if count == 0:
                continue
            paddings = _paddings(config, name, count)
            assert all(pad < size for pad, size in paddings) == fits


def _paddings(config: CodecConfig, name: str, frames: int) -> list[tuple[int, int]]:
    """Return padding and size of the signal of each convolution, by a run of the torch model."""
    found: list[tuple[int, int]] = []
    original = nn_layers.reflect_pad

    def record(x: torch.Tensor, left: int, right: int) -> torch.Tensor:
        found.append((max(left, right), x.shape[-1]))
        return original(x, left, right)

    model = DMCodec.seeded(config).eval()
    hop, width = config.hop_length, config.n_filters * 2 ** len(config.strides)
    sizes = range((frames - 1) * hop + 1, frames * hop + 1, 1 + hop // 40) if name.startswith("encoder") else [frames]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(nn_layers, "reflect_pad", record)
        for size in sizes:
            if name == DOWNSAMPLER:
                model.encoder.model[:-3](torch.zeros(1, 1, size))
            elif name == "encoder":
                model.encoder(torch.zeros(1, 1, size))
            elif name == "decoder":
                model.decoder(torch.zeros(1, config.dimension, size))
            else:
                model.decoder.model[2:](torch.zeros(1, width, size))
    return found


def test_a_codec_whose_padding_reaches_beyond_a_frame_streams_all_the_same() -> None:
    """There the layers after the LSTM keep the form that holds for any length."""
    values = CodecConfig(n_filters=2, dimension=8, semantic_dimension=8, codebook_size=8, strides=(2, 2)).to_dict()
    config = CodecConfig.from_dict({**values, "n_residual_layers": 3})
    graphs = {name: graph.model for name, graph in build_graphs(DMCodec.seeded(config).eval()).items()}
    assert "ScatterElements" in {node.op_type for node in graphs["decoder_upsampler"].graph.node}
    names = ("dequantizer", "decoder", "decoder_recurrent", "decoder_upsampler")
    sessions = {name: import_onnxruntime().InferenceSession(graphs[name].SerializeToString()) for name in names}

    def run(name: str, **inputs: Any) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = sessions[name].run(None, inputs)
        return outputs

    codes = np.random.default_rng(0).integers(0, 8, (config.n_q, 13))
    stream = StreamDecoder(run, config)
    audio = [*(stream.push(codes[:, [frame]]) for frame in range(13)), stream.finish()]
    latents = run("dequantizer", codes=codes[:, None], first_level=np.array(0))[0]
    whole = run("decoder", latents=latents, lengths=np.array([13]))[0][0, 0]
    np.testing.assert_allclose(np.concatenate(audio), whole, atol=1e-5)


def test_the_runtime_takes_the_form_that_fits(tiny_bundle: Path) -> None:
    backend = Recording()
    codec = Codec(Bundle.open(tiny_bundle), backend)
    plain = {plain_name(name) for name in HAVE_PLAIN_FORMS}
    waveform = np.tile(speech(40000, 16000), 6)  # 15 s: in tiles and steps
    for clips, forms in (
        ([waveform[:15680]], {"encoder_plain", "decoder_plain"}),
        ([waveform[:15680]] * 3, {"encoder_plain", "decoder_plain"}),
        ([waveform[:15680], waveform[:15580]], {"encoder", "decoder_plain"}),  # both have 49 frames
        ([waveform[:15680], waveform[:15300]], {"encoder", "decoder"}),
        ([waveform[:5]], {"encoder", "decoder"}),
        ([waveform], {"encoder_downsampler_plain"}),
    ):
        backend.ran.clear()
        codec.decode_batch(codec.encode_batch(clips, 16000))
        assert set(backend.ran) & (plain | set(HAVE_PLAIN_FORMS)) == forms


def test_bundles_without_plain_forms_give_the_same_tokens(tiny_bundle: Path, tiny_codec: Codec) -> None:
    opened = Bundle.open(tiny_bundle)
    graphs = {name: spec for name, spec in opened.manifest.graphs.items() if not name.endswith("_plain")}
    older = Codec(
        dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, graphs=graphs)), Recording()
    )
    for length in (5, 16000, 240000):
        waveform = np.resize(speech(min(length, 40000), 16000), length)
        tokens, expected = older.encode(waveform, 16000), tiny_codec.encode(waveform, 16000)
        np.testing.assert_array_equal(tokens.codes, expected.codes)
        np.testing.assert_allclose(older.decode(tokens), tiny_codec.decode(expected), atol=2e-6)
    assert not any(name.endswith("_plain") for name in encoder_part_names(opened.manifest.config))


@pytest.mark.parametrize(
    "inputs",
    [
        {"waveform": np.zeros((2, 1, 2000), np.float32), "lengths": np.array([2000])},
        {"waveform": np.zeros((1, 1, 2000), np.float32), "lengths": np.array([1999])},
        {"waveform": np.zeros((1, 1, 900), np.float32), "lengths": np.array([900])},
        {"waveform": np.zeros((1, 2000), np.float32), "lengths": np.array([2000])},
        {"waveform": np.zeros((1, 1, 2000), np.float32)},
        {"latents": np.zeros((1, 1, 2000), np.float32), "lengths": np.array([2000])},
    ],
)
def test_what_does_not_fit_keeps_the_form_that_was_asked_for(inputs: dict[str, NDArray[Any]]) -> None:
    config, graphs = CodecConfig(), ("encoder", "encoder_plain")
    assert fitting_form(config, graphs, "encoder", inputs) == ("encoder", inputs)
    fits = {"waveform": np.zeros((2, 1, 2000), np.float32), "lengths": np.array([2000, 2000])}
    assert fitting_form(config, graphs, "encoder", fits)[0] == "encoder_plain"
    assert fitting_form(config, ("encoder",), "encoder", fits)[0] == "encoder"
    value = import_onnxruntime().OrtValue.ortvalue_from_numpy(fits["waveform"])
    assert fitting_form(config, graphs, "encoder", {**fits, "waveform": value}) == (
        "encoder_plain",
        {"waveform": value},
    )
