"""The file that the graphs of a bundle share: each content once, nothing outside the folder, older bundles without."""

from __future__ import annotations

import collections
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data
from platforms import posix

from dmcodec.bundle import GRAPH_NAMES, Bundle, Manifest, read_manifest, write_manifest
from dmcodec.errors import BackendError, BundleError, BundleNotFoundError
from dmcodec.export.weights import MIN_EXTERNAL_BYTES, SharedWeights
from dmcodec.files import file_sha256
from dmcodec.onnx_locations import external_locations
from dmcodec.runtime import Codec
from dmcodec.sample import speech

WAVEFORM = speech(3777, 16000)


def relisted(bundle: Path, **changes: Any) -> Manifest:
    """Make the manifest fit altered files, with right digests."""
    manifest = dataclasses.replace(read_manifest(bundle), **changes)
    graphs = {}
    for name, spec in manifest.graphs.items():
        path = bundle / spec.file
        graphs[name] = dataclasses.replace(spec, sha256=file_sha256(path), size_bytes=path.stat().st_size)
    manifest = dataclasses.replace(manifest, graphs=graphs)
    write_manifest(bundle, manifest)
    return manifest


def codes_of(bundle: Path) -> NDArray[np.uint16]:
    return Codec.load(bundle, threads=1).encode(WAVEFORM, 16000).codes


def test_each_content_is_there_once(tiny_bundle: Path) -> None:
    places: dict[tuple[int, int], set[str]] = collections.defaultdict(set)
    for name in GRAPH_NAMES:
        model = onnx.load(tiny_bundle / f"{name}.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            assert uses_external_data(tensor) or len(tensor.raw_data) < MIN_EXTERNAL_BYTES
            if uses_external_data(tensor):
                entries = {entry.key: entry.value for entry in tensor.external_data}
                assert entries["location"] == "weights.bin"
                assert int(entries["offset"]) % 64 == 0
                places[int(entries["offset"]), int(entries["length"])].add(name)
    stored = (tiny_bundle / "weights.bin").read_bytes()
    contents = [stored[offset : offset + length] for offset, length in places]
    assert len(set(contents)) == len(contents)
    assert sum(map(len, contents)) + 64 * len(contents) >= len(stored)
    shared = {frozenset(names) for names in places.values() if len(names) > 1}
    assert shared == {
        frozenset({"decoder", "decoder_recurrent"}),
        frozenset({"decoder", "decoder_upsampler"}),
        frozenset({"quantizer", "dequantizer"}),
    }


def model_with(values: NDArray[np.float32]) -> onnx.ModelProto:
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(values, "w")])
    return helper.make_model(graph)


def test_graphs_that_differ_in_their_weights_only_differ(tmp_path: Path) -> None:
    """Engines are found by their graph's hash, so other weights need another hash."""
    found = []
    for value in (1, 2):
        folder = tmp_path / str(value)
        folder.mkdir()
        model = model_with(np.full(1000, value, np.float32))
        SharedWeights(folder).move_from(model)
        found.append(model.SerializeToString())
    assert found[0] != found[1]
    assert len(found[0]) == len(found[1]) < 500


def test_without_large_weights_there_is_no_file(tmp_path: Path) -> None:
    weights = SharedWeights(tmp_path)
    weights.move_from(model_with(np.zeros(10, np.float32)))
    assert weights.spec() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda path: path.unlink(), "weights.bin: the bundle is incomplete, this file is missing"),
        (lambda path: os.truncate(path, path.stat().st_size - 1), "weights.bin: was altered or cut"),
        (lambda path: os.truncate(path, 0), "weights.bin: was altered or cut"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "weights.bin: was altered or cut"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x7f"), "weights.bin: was altered after the export"),
    ],
)
def test_a_file_that_is_missing_cut_or_altered(
    copy_of_tiny_bundle: Path, alter: Callable[[Path], None], words: str
) -> None:
    alter(copy_of_tiny_bundle / "weights.bin")
    with pytest.raises(BundleError, match=words) as caught:
        Bundle.open(copy_of_tiny_bundle)
    assert isinstance(caught.value, BundleNotFoundError) == ("missing" in words)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "other.bin", "./weights.bin", "manifest.json"])
def test_weights_outside_the_listed_file_are_refused(copy_of_tiny_bundle: Path, location: str) -> None:
    """Even where the file is there and all digests are right."""
    for copy in (copy_of_tiny_bundle.parent / "weights.bin", copy_of_tiny_bundle / "other.bin"):
        shutil.copy(copy_of_tiny_bundle / "weights.bin", copy)
    path = copy_of_tiny_bundle / "decoder.onnx"
    model = onnx.load(path, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if uses_external_data(tensor))
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    relisted(copy_of_tiny_bundle)
    with pytest.raises(BundleError, match=r"decoder\.onnx: takes weights from .*, which is not a file of this bundle"):
        Bundle.open(copy_of_tiny_bundle)


@pytest.mark.parametrize("file", ["../weights.bin", "/etc/passwd", "sub/weights.bin"])
def test_a_listed_file_with_a_path_in_it_is_refused(copy_of_tiny_bundle: Path, file: str) -> None:
    weights = read_manifest(copy_of_tiny_bundle).weights
    assert weights is not None
    relisted(copy_of_tiny_bundle, weights=dataclasses.replace(weights, file=file))
    with pytest.raises(BundleError, match="not a plain name"):
        Bundle.open(copy_of_tiny_bundle)


def test_weights_that_the_manifest_does_not_list_are_refused(copy_of_tiny_bundle: Path) -> None:
    relisted(copy_of_tiny_bundle, weights=None)
    with pytest.raises(BundleError, match="takes weights from"):
        Bundle.open(copy_of_tiny_bundle)


def test_a_place_beyond_the_end_of_the_file_is_an_error(copy_of_tiny_bundle: Path) -> None:
    path = copy_of_tiny_bundle / "encoder_plain.onnx"
    model = onnx.load(path, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if uses_external_data(tensor))
    next(entry for entry in tensor.external_data if entry.key == "offset").value = str(1 << 40)
    path.write_bytes(model.SerializeToString())
    relisted(copy_of_tiny_bundle)
    with pytest.raises(BackendError, match=r"encoder_plain\.onnx"):
        codes_of(copy_of_tiny_bundle)


def hidden(where: str) -> onnx.ModelProto:
    """A graph whose external data is in an unusual place."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value="secret")
    graph = helper.make_graph([], "g", [], [])
    node = helper.make_node("Constant", [], ["y"])
    if where == "sparse":
        graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif where == "subgraph":
        inner = helper.make_graph([], "inner", [], [], [tensor])
        graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=inner))
    else:
        node.attribute.append(helper.make_attribute("value", tensor))
        graph.node.append(node)
    model = helper.make_model(graph)
    if where == "function":
        del model.graph.node[:]
        model.functions.add(name="f", domain="d").node.append(node)
    return model


@pytest.mark.parametrize("where", ["attribute", "sparse", "subgraph", "function"])
def test_every_place_for_external_data_is_checked(tmp_path: Path, where: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(hidden(where).SerializeToString())
    assert external_locations(path) == {"secret"}


def test_key_and_value_may_come_in_any_order(tmp_path: Path) -> None:
    content = hidden("attribute").SerializeToString()
    pair, swapped = b"\x0a\x08location\x12\x06secret", b"\x12\x06secret\x0a\x08location"
    assert pair in content
    (tmp_path / "x.onnx").write_bytes(content.replace(pair, swapped))
    assert external_locations(tmp_path / "x.onnx") == {"secret"}


@pytest.mark.parametrize("content", [b"\xff", b"\xff" * 50, b"\x3a\xff\x01", b"\x0b", b"hello"])
def test_what_is_not_protobuf_is_refused(copy_of_tiny_bundle: Path, content: bytes) -> None:
    (copy_of_tiny_bundle / "encoder.onnx").write_bytes(content)
    relisted(copy_of_tiny_bundle)
    with pytest.raises(BundleError, match=r"encoder\.onnx: not an ONNX graph"):
        Bundle.open(copy_of_tiny_bundle)


@posix
def test_a_bundle_that_was_moved_runs(tiny_bundle: Path, copy_of_tiny_bundle: Path, tmp_path: Path) -> None:
    moved = shutil.move(copy_of_tiny_bundle, tmp_path / "another place é")
    (tmp_path / "link").symlink_to(moved, target_is_directory=True)
    for path in (Path(moved), tmp_path / "link"):
        np.testing.assert_array_equal(codes_of(path), codes_of(tiny_bundle))


def test_a_bundle_of_format_1_opens_and_gives_the_same_codes(tiny_bundle: Path, copy_of_tiny_bundle: Path) -> None:
    """In format 1 every graph holds its own weights, and the encoder is there in one piece only."""
    graphs = Bundle.open(copy_of_tiny_bundle).manifest.graphs
    for name in graphs.keys() - set(GRAPH_NAMES):
        (copy_of_tiny_bundle / f"{name}.onnx").unlink()
    for name in GRAPH_NAMES:
        onnx.save(onnx.load(copy_of_tiny_bundle / f"{name}.onnx"), copy_of_tiny_bundle / f"{name}.onnx")
    (copy_of_tiny_bundle / "weights.bin").unlink()
    manifest = relisted(copy_of_tiny_bundle, weights=None, graphs={name: graphs[name] for name in GRAPH_NAMES})
    assert manifest.to_dict()["format_version"] == 1
    assert Bundle.open(tiny_bundle).manifest.to_dict()["format_version"] == 2
    np.testing.assert_array_equal(codes_of(copy_of_tiny_bundle), codes_of(tiny_bundle))
