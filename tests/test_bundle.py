"""A bundle that is incomplete, altered, hostile or newer is refused, each with its reason and its path."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmcodec.bundle import FORMAT_VERSION, GRAPH_NAMES, STEPS, Bundle, encoder_part_names, write_manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import BundleError, BundleNotFoundError, BundleVersionError, ConfigError
from dmcodec.files import file_sha256
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id
from dmcodec.plain_form import HAVE_PLAIN_FORMS, plain_name


def rewrite(bundle: Path, alter: Callable[[dict[str, Any]], object], digest: bool = True) -> None:
    """Alters the manifest's values; with `digest`, as somebody would who knows how the digest is made."""
    path = bundle / "manifest.json"
    body = json.loads(path.read_text())
    if digest:
        del body["sha256"]
    alter(body)
    if digest:
        body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(body))


def test_a_bundle_says_what_was_exported(tiny_bundle: Path, tiny_model: DMCodec, tiny_config: CodecConfig) -> None:
    bundle = Bundle.open(tiny_bundle)
    manifest = bundle.manifest
    assert manifest.config == tiny_config
    assert manifest.model_id == model_id(tiny_model)
    assert manifest.precision == "fp32"
    assert manifest.provenance["seed"] == 0
    plain = map(plain_name, HAVE_PLAIN_FORMS)
    assert set(manifest.graphs) == {*GRAPH_NAMES, *encoder_part_names(manifest.config), *plain, *STEPS.values()}
    for name, spec in manifest.graphs.items():
        path = bundle.graph_path(name)
        assert path.parent == tiny_bundle
        assert (spec.sha256, spec.size_bytes) == (file_sha256(path), path.stat().st_size)
        assert hashlib.sha256(path.read_bytes()).hexdigest() == spec.sha256
    files = {"manifest.json", "weights.bin", *(f"{n}.onnx" for n in manifest.graphs)}
    assert {path.name for path in tiny_bundle.iterdir()} == files
    assert manifest.weights is not None
    assert manifest.weights.sha256 == file_sha256(tiny_bundle / "weights.bin")
    sizes = [path.stat().st_size for path in tiny_bundle.iterdir() if path.name != "manifest.json"]
    assert manifest.size_bytes == sum(sizes)
    assert Bundle.open(str(tiny_bundle)) == bundle


def test_a_manifest_written_again_is_the_same(tiny_bundle: Path, copy_of_tiny_bundle: Path) -> None:
    write_manifest(copy_of_tiny_bundle, Bundle.open(tiny_bundle).manifest)
    assert (copy_of_tiny_bundle / "manifest.json").read_bytes() == (tiny_bundle / "manifest.json").read_bytes()


def test_a_bundle_can_be_moved(copy_of_tiny_bundle: Path, tmp_path: Path) -> None:
    moved = shutil.move(copy_of_tiny_bundle, tmp_path / "elsewhere")
    assert Bundle.open(moved).manifest.config.dimension == 32


@pytest.mark.parametrize("name", ["none", "none/none", "x" * 5000])
def test_a_missing_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleNotFoundError, match="no such folder") as caught:
        Bundle.open(tmp_path / name)
    assert str(tmp_path) in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_without_a_manifest_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BundleNotFoundError, match="file: not a bundle"):
        Bundle.open(tmp_path / "file")


@pytest.mark.parametrize("name", GRAPH_NAMES)
class TestGraphFiles:
    def test_missing(self, copy_of_tiny_bundle: Path, name: str) -> None:
        (copy_of_tiny_bundle / f"{name}.onnx").unlink()
        with pytest.raises(BundleNotFoundError, match=rf"{name}\.onnx: .*missing"):
            Bundle.open(copy_of_tiny_bundle)

    @pytest.mark.parametrize("where", [0, 0.5, -1])
    def test_one_bit_altered(self, copy_of_tiny_bundle: Path, name: str, where: float) -> None:
        path = copy_of_tiny_bundle / f"{name}.onnx"
        content = bytearray(path.read_bytes())
        content[where if isinstance(where, int) else int(where * len(content))] ^= 1
        path.write_bytes(content)
        with pytest.raises(BundleError, match=rf"{name}\.onnx: was altered"):
            Bundle.open(copy_of_tiny_bundle)

    @pytest.mark.parametrize(
        "alter", [lambda content: content[:-1], lambda content: b"", lambda content: content + b"x"]
    )
    def test_cut_or_longer(self, copy_of_tiny_bundle: Path, name: str, alter: Callable[[bytes], bytes]) -> None:
        path = copy_of_tiny_bundle / f"{name}.onnx"
        path.write_bytes(alter(path.read_bytes()))
        with pytest.raises(BundleError, match=rf"{name}\.onnx: was altered or cut"):
            Bundle.open(copy_of_tiny_bundle)

    def test_swapped_with_another(self, copy_of_tiny_bundle: Path, name: str) -> None:
        other = next(other for other in GRAPH_NAMES if other != name)
        shutil.copy(copy_of_tiny_bundle / f"{other}.onnx", copy_of_tiny_bundle / f"{name}.onnx")
        with pytest.raises(BundleError, match=rf"{name}\.onnx"):
            Bundle.open(copy_of_tiny_bundle)

    def test_not_in_the_manifest(self, copy_of_tiny_bundle: Path, name: str) -> None:
        rewrite(copy_of_tiny_bundle, lambda body: body["graphs"].pop(name))
        with pytest.raises(BundleError, match=rf"manifest\.json: .*no graph {name}"):
            Bundle.open(copy_of_tiny_bundle)


def set_in(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def alter(body: dict[str, Any]) -> None:
        for key in keys[:-1]:
            body = body[key]
        body[keys[-1]] = to

    return alter


@pytest.mark.parametrize(
    "alter",
    [
        set_in("model_id", to="0" * 16),
        set_in("config", "n_q", to=7),
        set_in("graphs", "encoder", "sha256", to="0" * 64),
        set_in("parity", "latents_snr_db", to=200.0),
        set_in("provenance", "seed", to=1),
        set_in("sha256", to="0" * 64),
        set_in("more", to="than there was"),
        lambda body: body.pop("sha256"),
        lambda body: body.pop("parity"),
    ],
)
def test_an_altered_manifest_is_refused(copy_of_tiny_bundle: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    rewrite(copy_of_tiny_bundle, alter, digest=False)
    with pytest.raises(BundleError, match=r"manifest\.json: was altered"):
        Bundle.open(copy_of_tiny_bundle)


def test_every_altered_digit_of_the_manifest_is_found(copy_of_tiny_bundle: Path) -> None:
    path = copy_of_tiny_bundle / "manifest.json"
    text = path.read_text()
    digits = [place for place, character in enumerate(text) if character.isdigit()]
    tried = 0
    for place in digits[:: len(digits) // 80]:
        altered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        leading_zero = text[place] == "9" and text[place + 1].isdigit() and not text[place - 1].isdigit()
        # A leading zero isn't JSON (tested elsewhere); the last of a float's digits may make no difference.
        if leading_zero or json.loads(altered) == json.loads(text):
            continue
        path.write_text(altered)
        with pytest.raises(BundleError):
            Bundle.open(copy_of_tiny_bundle)
        tried += 1
    assert tried > 50


@pytest.mark.parametrize("digest", [True, False])
def test_a_newer_format_says_to_update(copy_of_tiny_bundle: Path, digest: bool) -> None:
    rewrite(copy_of_tiny_bundle, set_in("format_version", to=FORMAT_VERSION + 1), digest)
    with pytest.raises(BundleVersionError, match="update") as caught:
        Bundle.open(copy_of_tiny_bundle)
    assert str(copy_of_tiny_bundle) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"not json", b"\xff\xfe\x00\x01", b"null", b"[]", b"{}", b'{"format_version": "1"}', b"[" * 100_000],
)
def test_what_is_not_a_manifest_is_refused(copy_of_tiny_bundle: Path, content: bytes) -> None:
    (copy_of_tiny_bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(copy_of_tiny_bundle)


@pytest.mark.parametrize(
    "file", ["../encoder.onnx", "/etc/passwd", "sub/encoder.onnx", "..", ".", "", "./encoder.onnx"]
)
def test_a_graph_file_with_a_path_in_it_is_refused(copy_of_tiny_bundle: Path, file: str) -> None:
    """Even where the file is there and all digests are right: a bundle reads nothing outside its folder."""
    for folder in (copy_of_tiny_bundle.parent, copy_of_tiny_bundle / "sub"):
        folder.mkdir(exist_ok=True)
        shutil.copy(copy_of_tiny_bundle / "encoder.onnx", folder)
    rewrite(copy_of_tiny_bundle, set_in("graphs", "encoder", "file", to=file))
    with pytest.raises(BundleError, match="bundle_copy"):
        Bundle.open(copy_of_tiny_bundle)


@pytest.mark.parametrize(
    "alter",
    [
        set_in("graphs", to=[]),
        set_in("graphs", to=None),
        set_in("graphs", "encoder", to="encoder.onnx"),
        set_in("graphs", "encoder", "file", to=5),
        set_in("graphs", "encoder", "file", to=None),
        set_in("graphs", "encoder", "file", to="nul\0"),
        set_in("graphs", "encoder", "file", to="x" * 5000),
        set_in("graphs", "encoder", "inputs", to=None),
        set_in("graphs", "encoder", "inputs", to=[{"name": "waveform"}]),
        set_in("graphs", "encoder", "size_bytes", to="many"),
        set_in("graphs", "encoder", "sha256", to=None),
        set_in("weights", to="weights.bin"),
        set_in("weights", to={"file": "weights.bin"}),
        set_in("weights", "size_bytes", to=None),
        lambda body: body.pop("model_id"),
        lambda body: body.pop("graphs"),
        lambda body: body.pop("config"),
    ],
)
def test_a_manifest_with_a_right_digest_and_wrong_values(
    copy_of_tiny_bundle: Path, alter: Callable[[dict[str, Any]], object]
) -> None:
    rewrite(copy_of_tiny_bundle, alter)
    with pytest.raises(BundleError, match="bundle_copy"):
        Bundle.open(copy_of_tiny_bundle)


def test_a_configuration_out_of_range_in_a_manifest(copy_of_tiny_bundle: Path) -> None:
    rewrite(copy_of_tiny_bundle, set_in("config", "n_q", to=0))
    with pytest.raises(ConfigError, match=r"bundle_copy.*n_q"):
        Bundle.open(copy_of_tiny_bundle)
