"""The bundle: a folder with `manifest.json` and its graphs, the whole contract between export and runtime."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmcodec.config import CodecConfig
from dmcodec.errors import BundleError, BundleNotFoundError, BundleVersionError, ConfigError
from dmcodec.files import write_bytes

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
GRAPH_NAMES = ("encoder", "quantizer", "dequantizer", "decoder", "decoder_recurrent", "decoder_upsampler")
PRECISIONS = ("fp32", "fp16")


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output. `axes` holds a name for each dynamic axis and a number for each fixed one."""

    name: str
    dtype: str
    axes: tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class GraphSpec:
    """One graph of the bundle. `precision` is that of its arithmetic; inputs and outputs are float32 in any case."""

    file: str
    sha256: str
    size_bytes: int
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        config: the codec's configuration.
        model_id: 16 hex digits naming the weights; written into tokens.
        precision: of the encoder's and the decoder's arithmetic.
        graphs: their inputs and outputs are described in docs/bundle.md.
        provenance: checkpoint and its sha256 or the seed, versions of torch, onnx and exporter, opset.
        parity: the figures measured at export.
        encoder_context: how much context the encoder needs until codes stop changing, measured at export, and
            `default_context_s`, which is used.
        engines: TensorRT engines that were built into the bundle's `engines` folder: file -> what `dmcodec.tensorrt`
            found in them. Bundles without any, and readers that don't know of them, do without.
    """

    config: CodecConfig
    model_id: str
    precision: str
    graphs: Mapping[str, GraphSpec]
    provenance: Mapping[str, Any]
    parity: Mapping[str, Any]
    encoder_context: Mapping[str, Any]
    engines: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the format version and a digest over everything else."""
        body: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "model_id": self.model_id,
            "precision": self.precision,
            "config": self.config.to_dict(),
            "graphs": {name: dataclasses.asdict(spec) for name, spec in self.graphs.items()},
            "provenance": dict(self.provenance),
            "parity": dict(self.parity),
            "encoder_context": dict(self.encoder_context),
        }
        if self.engines:
            body["engines"] = dict(self.engines)
        body = json.loads(json.dumps(body))
        return {**body, "sha256": _digest(body)}


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked."""

    path: Path
    manifest: Manifest

    def graph_path(self, name: str) -> Path:
        """Path of a graph's ONNX file."""
        return self.path / self.manifest.graphs[name].file

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Reads a bundle and checks that it is complete, unaltered, and of a version this dmcodec knows.

        Raises:
            BundleNotFoundError: no bundle there, or one of its files is missing.
            BundleVersionError: written by a newer dmcodec.
            BundleError: the manifest or a graph was altered or cut.
        """
        path = Path(path)
        manifest = read_manifest(path)
        for spec in manifest.graphs.values():
            _check_file(path / spec.file, spec)
        return cls(path, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` into the folder that holds the graphs, whole or not at all."""
    text = json.dumps(manifest.to_dict(), indent=1, allow_nan=False)
    write_bytes(folder / MANIFEST, f"{text}\n".encode())


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle `path`, checked itself; the graphs are not looked at.

    Raises:
        BundleNotFoundError, BundleVersionError, BundleError: as `Bundle.open`.
    """
    file = path / MANIFEST
    if not os.path.isfile(file):  # noqa: PTH113 - Path.is_file raises where the name is too long
        problem = f"has no {MANIFEST}" if os.path.isdir(path) else "no such folder"  # noqa: PTH112
        raise BundleNotFoundError(f"{path}: not a bundle, {problem}; `dmcodec export` writes one")
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise BundleError(f"{file}: can't be read as a manifest ({error})") from None
    version = body.get("format_version") if isinstance(body, dict) else None
    if not isinstance(version, int):
        raise BundleError(f"{file}: not a bundle's manifest, it has no format_version")
    if version > FORMAT_VERSION:
        raise BundleVersionError(
            f"{path}: bundle format {version}, this dmcodec reads up to {FORMAT_VERSION}; "
            "update dmcodec or export again"
        )
    if body.pop("sha256", None) != _digest(body):
        raise BundleError(f"{file}: was altered after the export (its digest doesn't match); export again")
    try:
        return _parse(body, str(file))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise BundleError(f"{file}: not a valid manifest ({type(error).__name__}: {error})") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(body: Mapping[str, Any], source: str) -> Manifest:
    graphs = {name: _parse_graph(spec) for name, spec in body["graphs"].items()}
    if missing := [name for name in GRAPH_NAMES if name not in graphs]:
        raise ValueError(f"no graph {', '.join(missing)}")
    return Manifest(
        config=CodecConfig.from_dict(body["config"], source=source),
        model_id=body["model_id"],
        precision=body["precision"],
        graphs=graphs,
        provenance=body["provenance"],
        parity=body["parity"],
        encoder_context=body["encoder_context"],
        engines=_parse_engines(body.get("engines", {})),
    )


def _parse_engines(values: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(values, dict) or not all(isinstance(facts, dict) for facts in values.values()):
        raise TypeError("engines is not an object of objects")
    return values


def _parse_graph(values: Mapping[str, Any]) -> GraphSpec:
    if Path(values["file"]).name != values["file"]:
        raise ValueError(f"graph file {values['file']!r} is not a plain name")
    tensors = {
        side: tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["axes"])) for spec in values[side])
        for side in ("inputs", "outputs")
    }
    return GraphSpec(
        values["file"],
        values["sha256"],
        values["size_bytes"],
        values["precision"],
        tensors["inputs"],
        tensors["outputs"],
    )


def _check_file(path: Path, spec: GraphSpec) -> None:
    if not os.path.isfile(path):  # noqa: PTH113
        raise BundleNotFoundError(f"{path}: the bundle is incomplete, this graph is missing; export again")
    size = path.stat().st_size
    if size != spec.size_bytes:
        raise BundleError(
            f"{path}: was altered or cut ({size} bytes, the manifest says {spec.size_bytes}); export again"
        )
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: can't be read ({error.strerror or error})") from None
    if sha256 != spec.sha256:
        raise BundleError(f"{path}: was altered after the export (its sha256 doesn't match the manifest); export again")
