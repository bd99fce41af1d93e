"""A bundle of an earlier version is written again, with the graphs of today and its own weights."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dmcodec.bundle import STEPS, Bundle, encoder_part_names, write_manifest
from dmcodec.cli import main
from dmcodec.config import CodecConfig
from dmcodec.errors import ExportError, OutputExistsError
from dmcodec.export import Source, export_again, export_bundle
from dmcodec.export.torch_model import torch_model
from dmcodec.export.weights import TAPS, from_two_taps, read_weights
from dmcodec.files import file_sha256
from dmcodec.nn import DMCodec
from dmcodec.plain_form import HAVE_PLAIN_FORMS, plain_name
from dmcodec.runtime import Codec
from dmcodec.sample import speech

CONFIG = CodecConfig(n_filters=2, dimension=16, semantic_dimension=12, codebook_size=256, n_q=3)


def older(bundle: Bundle) -> Bundle:
    """Take away what earlier versions did not write: parts, plain forms, two taps, and the centres of the codebooks."""
    manifest = bundle.manifest
    plain = [plain_name(name) for name in HAVE_PLAIN_FORMS]
    parts = {*encoder_part_names(manifest.config), *plain, *STEPS.values()}
    transposed(bundle.graph_path("decoder"))
    for name in parts:
        bundle.graph_path(name).unlink()
    path = bundle.graph_path("quantizer")
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:  # zero for a centre: |e|^2 - 2 x.e
        for index, name in enumerate(node.input):
            if name.endswith(".centre"):
                node.input[index] = f"{name}.zero"
    zeros = np.zeros(manifest.config.dimension, np.float32)
    for level in range(manifest.config.n_q):
        model.graph.initializer.append(onnx.numpy_helper.from_array(zeros, f"codebook_{level}.centre.zero"))
        norms = next(item for item in model.graph.initializer if item.name == f"codebook_{level}.squared_norms")
        entries = read_weights(path)[f"codebook_{level}"].astype(np.float64)
        norms.CopyFrom(onnx.numpy_helper.from_array(np.square(entries).sum(axis=1).astype(np.float32), norms.name))
    path.write_bytes(model.SerializeToString())
    graphs = {name: spec for name, spec in manifest.graphs.items() if name not in parts}
    for name in ("quantizer", "decoder"):
        path = bundle.graph_path(name)
        graphs[name] = dataclasses.replace(graphs[name], sha256=file_sha256(path), size_bytes=path.stat().st_size)
    provenance = {**manifest.provenance, "exporter": "dmcodec 0.0.1"}
    write_manifest(bundle.path, dataclasses.replace(manifest, graphs=graphs, provenance=provenance))
    return Bundle.open(bundle.path)


def transposed(path: Path) -> None:
    """Turn the convolutions of two taps of a graph into the ConvTranspose that earlier versions wrote."""
    model = onnx.load(path)
    graph = model.graph
    stored = {item.name: item for item in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    for trim in [node for node in graph.node if node.op_type == "Slice"]:
        whole = made[trim.input[0]]
        turned = made[whole.input[0]]
        split = made[turned.input[0]]
        conv = made[split.input[0]]
        layer = conv.input[2].removesuffix(".bias")
        taps, bias = (onnx.numpy_helper.to_array(stored[f"{layer}.{part}"]) for part in (TAPS, "bias"))
        stride = int(onnx.numpy_helper.to_array(stored[split.input[1]])[2])
        left = int(onnx.numpy_helper.to_array(stored[trim.input[1]])[0])
        stored[f"{layer}.{TAPS}"].CopyFrom(onnx.numpy_helper.from_array(from_two_taps(taps, stride), f"{layer}.weight"))
        stored[f"{layer}.bias"].CopyFrom(onnx.numpy_helper.from_array(bias[::stride].copy(), f"{layer}.bias"))
        for node in graph.node:
            node.input[:] = [f"{layer}.weight" if name == f"{layer}.{TAPS}" else name for name in node.input]
        shape: dict[str, Any] = {"strides": [stride], "kernel_shape": [2 * stride], "pads": [left, stride - left]}
        conv.CopyFrom(onnx.helper.make_node("ConvTranspose", conv.input, trim.output, name=conv.name, **shape))
        for node in (split, turned, whole, trim):
            graph.node.remove(node)
    assert [node.op_type for node in graph.node].count("ConvTranspose") == 4
    path.write_bytes(model.SerializeToString())


@pytest.fixture(scope="module", params=["fp32", "fp16-weights"])
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("older")
    return older(export_bundle(DMCodec.seeded(CONFIG, 3), folder / "old", request.param, Source(seed=3)))


@pytest.fixture(scope="module")
def new(old: Bundle) -> Bundle:
    return export_again(old, old.path.with_name("new"))


def test_it_is_the_same_model_with_the_graphs_of_today(old: Bundle, new: Bundle) -> None:
    assert Bundle.open(new.path) == new
    before, after = old.manifest, new.manifest
    assert (before.has_encoder_parts, after.has_encoder_parts) == (False, True)
    assert (after.model_id, after.precision, after.config) == (before.model_id, before.precision, before.config)
    for name in ("encoder", "dequantizer"):
        assert after.graphs[name].sha256 == before.graphs[name].sha256  # its metadata hold a digest of its weights
    old_weights, new_weights = (read_weights(item.graph_path("quantizer")) for item in (old, new))
    for level in range(CONFIG.n_q):
        name = f"codebook_{level}"
        assert new_weights[name].tobytes() == old_weights[name].tobytes()
        assert new_weights[f"{name}.centre"].any()
    ours, theirs = (Codec.load(item.path, threads=1).encode(speech(16000, 16000), 16000) for item in (new, old))
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    audio, older_audio = (Codec.load(item.path, threads=1).decode(ours) for item in (new, old))
    np.testing.assert_allclose(audio, older_audio, atol=1e-6)
    models = [
        torch_model(CONFIG, {name: item.graph_path(name) for name in item.manifest.graphs}) for item in (old, new)
    ]
    for part in ("encoder", "decoder"):
        first, second = (getattr(model, part).state_dict() for model in models)
        for name, weight in first.items():
            assert torch.equal(second[name], weight), name
    assert sum(name.endswith(f".{TAPS}") for name in read_weights(new.graph_path("decoder"))) == 4
    assert ours.model_id == theirs.model_id


def test_the_manifest_says_what_was_measured_when(old: Bundle, new: Bundle) -> None:
    manifest = new.manifest
    assert manifest.provenance["seed"] == 3
    assert manifest.provenance["first_export"]["exporter"] == "dmcodec 0.0.1"
    assert manifest.provenance["exporter"] != "dmcodec 0.0.1"
    first = manifest.parity["first_export"]
    assert first["latents_snr_db"] == old.manifest.parity["latents_snr_db"]
    assert first["thresholds"] == old.manifest.parity["thresholds"]
    if old.manifest.precision == "fp16-weights":  # the graphs alone: what rounding costs is in the first record
        assert first["latents_snr_db"] < 80 < 90 < manifest.parity["latents_snr_db"]


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.setattr(sys, "argv", ["dmcodec", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


@pytest.mark.parametrize("old", ["fp16-weights"], indirect=True)
def test_the_command_twice_and_in_place(
    old: Bundle, new: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = new.path
    for arguments, code, words in (
        (("--bundle", old.path, "--out", out), 1, "exists already"),
        (("--bundle", old.path), 2, "--out BUNDLE"),
        (("--bundle", old.path, "--out", tmp_path / "x", "--precision", "fp32"), 2, "is fp16-weights"),
        (("--bundle", old.path, "--out", tmp_path / "x", "--seed", 1), 2, "--bundle: it has its weights"),
        (("--bundle", tmp_path, "--out", tmp_path / "x"), 1, "not a bundle"),
    ):
        assert command(monkeypatch, *arguments) == code
        error = capsys.readouterr().err
        assert words in error
        assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert not command(monkeypatch, "--bundle", out, "--out", out, "--force", "--json")
    again = Bundle.open(out).manifest
    assert json.loads(capsys.readouterr().out)["model_id"] == again.model_id == old.manifest.model_id
    for record in ("parity", "provenance"):
        assert getattr(again, record)["first_export"] == getattr(new.manifest, record)["first_export"]
    assert sorted(item.name for item in out.parent.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("old", ["fp32"], indirect=True)
def test_graphs_of_another_making_and_outputs_that_exist_are_refused(old: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError):
        export_again(old, old.path)
    foreign = Bundle(Path(shutil.copytree(old.path, tmp_path / "foreign")), old.manifest)
    path = foreign.graph_path("quantizer")
    model = onnx.load(path, load_external_data=False)
    for item in model.graph.initializer:
        item.name = f"x_{item.name}"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="not a quantizer as"):
        export_again(foreign, tmp_path / "new")
    assert not (tmp_path / "new").exists()
