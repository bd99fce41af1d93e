"""The bundle: a folder with graphs and `manifest.json`. It is all that the runtime gets from an export."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checked_bundles import Checked
from .config import CodecConfig
from .errors import BundleError, BundleNotFoundError, BundleVersionError, ConfigError, detail
from .files import file_sha256, json_sha256, write_bytes
from .onnx_locations import external_locations

MANIFEST = "manifest.json"
FORMAT_VERSION = 3
# Format versions of bundles that older dmcodec reads, too: without a file of weights, and of codecs that are configured
# as DM-Codec is but for its sizes.
_GRAPHS_HOLD_THEIR_WEIGHTS, _PLAIN_CONFIGURATION = 1, 2
GRAPH_NAMES = ("encoder", "quantizer", "dequantizer", "decoder", "decoder_recurrent", "decoder_upsampler")
# The encoder in parts, for clips of any length and for streams; bundles of an earlier dmcodec don't have them.
DOWNSAMPLER, OUTPUT = "encoder_downsampler", "encoder_output"
# Layers with a state, which a CPU runs in steps; bundles of an earlier dmcodec don't have them, and run in windows.
UPSAMPLER_STEPS, DOWNSAMPLER_STEPS = "decoder_upsampler_steps", "encoder_downsampler_steps"
STEPS: Mapping[str, str] = {"decoder_upsampler": UPSAMPLER_STEPS, DOWNSAMPLER: DOWNSAMPLER_STEPS}
MAX_LOOK_AHEAD_S = 60.0
DEFAULT_LOOK_AHEAD_S = 0.5  # of bundles whose export did not measure it
_DEFAULT_BUNDLE = Path(__file__).parent / "data" / "dmcodec-small.bundle"


def lstm_name(layer: int, direction: str) -> str:
    """Return the name of the graph of one LSTM layer of the encoder; `direction` is "forward" or "backward"."""
    return f"encoder_lstm_{layer}_{direction}"


def directions(config: CodecConfig) -> tuple[str, ...]:
    """Return the directions of the encoder's LSTM."""
    return ("forward", "backward") if config.bidirectional else ("forward",)


def encoder_part_names(config: CodecConfig) -> tuple[str, ...]:
    """Return the names of the graphs that together are the encoder, in the order in which they run."""
    layers = [lstm_name(layer, way) for layer in range(config.lstm_layers) for way in directions(config)]
    return (DOWNSAMPLER, *layers, OUTPUT)


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph. `axes` holds a name for each dynamic axis and a number for each fixed one."""

    name: str
    dtype: str
    axes: tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class GraphSpec:
    """One graph of the bundle. `precision` is that of its arithmetic; floating-point inputs and outputs are float32."""

    file: str
    sha256: str
    size_bytes: int
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def state_size(graphs: Mapping[str, GraphSpec], steps: str) -> int:
    """Return the size of the state of UPSAMPLER_STEPS or DOWNSAMPLER_STEPS; 0 where it is not among the graphs."""
    inputs = graphs[steps].inputs if steps in graphs else ()
    return next((int(tensor.axes[1]) for tensor in inputs if tensor.name == "state"), 0)


@dataclasses.dataclass(frozen=True)
class WeightsSpec:
    """The file that holds the large weights of all graphs."""

    file: str
    sha256: str
    size_bytes: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        config: configuration of the codec.
        model_id: 16 hex digits that identify the weights; written into tokens.
        precision: a name of `dmcodec.precision.PRECISIONS`.
        graphs: by name; docs/reference/bundle.md describes their inputs and outputs.
        provenance: checkpoint and its sha256, or the seed; versions of torch, onnx and exporter; opset.
        parity: agreement with the torch model, measured at export.
        encoder_context: effect of the length of a window's context on the codes, measured at export, and
            `default_context_s`, the length that is used.
        look_ahead: effect of the look-ahead of live encoding on codes and speech, measured at export, and
            `default_look_ahead_s`, the one that is used. Optional, also for readers: empty where it was not measured.
        int8: which layers compute in int8, and what that costs on held-out speech, of bundles of that precision.
            Optional, also for readers: empty for other precisions.
        engines: TensorRT engines in the bundle's folder `engines`: file -> record. Optional, also for readers.
        weights: file of the weights that the graphs share; None if each graph holds its own.
    """

    config: CodecConfig
    model_id: str
    precision: str
    graphs: Mapping[str, GraphSpec]
    provenance: Mapping[str, Any]
    parity: Mapping[str, Any]
    encoder_context: Mapping[str, Any]
    engines: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    weights: WeightsSpec | None = None
    look_ahead: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    int8: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def has_encoder_parts(self) -> bool:
        """Whether the bundle holds the encoder in parts (`encoder_part_names`)."""
        return all(name in self.graphs for name in encoder_part_names(self.config))

    @property
    def default_look_ahead_s(self) -> float:
        """Look-ahead of live encoding in seconds, where none is chosen."""
        if not self.config.bidirectional:
            return 0.0
        return float(self.look_ahead.get("default_look_ahead_s", DEFAULT_LOOK_AHEAD_S))

    @property
    def arithmetic(self) -> str:
        """Precision of the encoder's and the decoder's arithmetic: "fp32", "fp16" or "int8"."""
        return self.graphs["encoder"].precision

    @property
    def size_bytes(self) -> int:
        """Size of the graphs and their weights."""
        return sum(spec.size_bytes for spec in self.files)

    @property
    def files(self) -> tuple[GraphSpec | WeightsSpec, ...]:
        """All files but the manifest."""
        return (*self.graphs.values(), *([self.weights] if self.weights else []))

    @property
    def _format_version(self) -> int:
        if not self.config.is_plain:
            return FORMAT_VERSION
        return _PLAIN_CONFIGURATION if self.weights else _GRAPHS_HOLD_THEIR_WEIGHTS

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, with the format version and a digest of all other values."""
        body: dict[str, Any] = {
            "format_version": self._format_version,
            "model_id": self.model_id,
            "precision": self.precision,
            "config": self.config.to_dict(),
            "graphs": {name: dataclasses.asdict(spec) for name, spec in self.graphs.items()},
            "provenance": dict(self.provenance),
            "parity": dict(self.parity),
            "encoder_context": dict(self.encoder_context),
        }
        if self.weights:
            body["weights"] = dataclasses.asdict(self.weights)
        if self.engines:
            body["engines"] = dict(self.engines)
        if self.look_ahead:
            body["look_ahead"] = dict(self.look_ahead)
        if self.int8:
            body["int8"] = dict(self.int8)
        body = json.loads(json.dumps(body))
        return {**body, "sha256": json_sha256(body)}


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle that was read and checked; made by `open`."""

    path: Path
    manifest: Manifest

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path: the process that unpickles opens the bundle there, or its own default bundle."""
        path = None if self.path.absolute() == _DEFAULT_BUNDLE else self.path.absolute()
        return _reopened, (path, self.manifest.model_id, self.manifest.precision)

    def graph_path(self, name: str) -> Path:
        """Return the path of a graph's ONNX file."""
        return self.path / self.manifest.graphs[name].file

    @classmethod
    def open(cls, path: str | Path, again: bool = False) -> Bundle:
        """Read a bundle; check that it is complete, unaltered, and of a version that this dmcodec knows.

        Files that did not change since they were last checked are not read again (`dmcodec.checked_bundles`).

        Args:
            path: folder of the bundle.
            again: read and check all files in any case.

        Raises:
            BundleNotFoundError: no bundle at that path, or one of its files is missing.
            BundleVersionError: written by a newer dmcodec.
            BundleError: the manifest, a graph or the weights were altered or cut, or a graph reads other files.
        """
        path = Path(path)
        manifest = read_manifest(path)
        state = _state(path, manifest)
        if again or state is None or not state.is_known():
            for spec in manifest.files:
                _check_file(path / spec.file, spec)
            for graph in manifest.graphs.values():
                _check_locations(path / graph.file, manifest.weights)
            if state is not None:
                state.remember()
        return cls(path, manifest)


def checked_before(bundle: Bundle) -> bool:
    """Return whether the files are as they were when dmcodec checked them, so that opening them again reads none."""
    state = _state(bundle.path, bundle.manifest)
    return state is not None and state.is_known()


def _state(path: Path, manifest: Manifest) -> Checked | None:
    return Checked.now(path, [MANIFEST, *(spec.file for spec in manifest.files)])


def default_bundle_path() -> Path:
    """Return the path of the bundle that comes with dmcodec, a small trained codec; it is the default everywhere."""
    return _DEFAULT_BUNDLE


def _reopened(path: Path | None, model_id: str, precision: str) -> Bundle:
    """Open the bundle of a pickled `Bundle`.

    Raises:
        BundleNotFoundError, BundleVersionError, BundleError: as `Bundle.open`, or it is another one now.
    """
    path = path or _DEFAULT_BUNDLE
    if not os.path.isdir(path):  # noqa: PTH112
        raise BundleNotFoundError(
            f"{path}: no such folder; a pickled codec opens its bundle at the same path, so copy the bundle there"
        )
    bundle = Bundle.open(path)
    found = bundle.manifest
    if (found.model_id, found.precision) != (model_id, precision):
        raise BundleError(
            f"{path}: holds model {found.model_id} in {found.precision}, the pickled codec was of model {model_id} in "
            f"{precision}; load the codec again and pickle that"
        )
    return bundle


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into the folder of the graphs, whole or not at all."""
    text = json.dumps(manifest.to_dict(), indent=1, allow_nan=False)
    write_bytes(folder / MANIFEST, f"{text}\n".encode())


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of the bundle `path`, but not the graphs.

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
        raise BundleError(f"{file}: can't be read as a manifest ({detail(error)}); export again") from error
    version = body.get("format_version") if isinstance(body, dict) else None
    if not isinstance(version, int):
        raise BundleError(f"{file}: not the manifest of a bundle, it has no format_version")
    if version > FORMAT_VERSION:
        raise BundleVersionError(
            f"{path}: bundle format {version}, this dmcodec reads up to {FORMAT_VERSION}; "
            "update dmcodec or export again"
        )
    if body.pop("sha256", None) != json_sha256(body):
        raise BundleError(f"{file}: was altered after the export (its digest doesn't match); export again")
    try:
        return _parse(body, str(file))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise BundleError(f"{file}: not a valid manifest ({type(error).__name__}: {error}); export again") from error


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
        weights=_parse_weights(body.get("weights")),
        look_ahead=_parse_look_ahead(body.get("look_ahead", {})),
        int8=_parse_int8(body.get("int8", {})),
    )


def _parse_look_ahead(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise TypeError("look_ahead is not an object")
    if values and not 0 <= values["default_look_ahead_s"] <= MAX_LOOK_AHEAD_S:
        raise ValueError(f"default_look_ahead_s is not 0 to {MAX_LOOK_AHEAD_S:g}")
    return values


def _parse_int8(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise TypeError("int8 is not an object")
    return values


def _parse_engines(values: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(values, dict) or not all(isinstance(record, dict) for record in values.values()):
        raise TypeError("engines is not an object of objects")
    return values


def _parse_weights(values: Mapping[str, Any] | None) -> WeightsSpec | None:
    if values is None:
        return None
    return WeightsSpec(_plain_name(values["file"]), values["sha256"], values["size_bytes"])


def _plain_name(file: str) -> str:
    if Path(file).name != file or file in (".", ".."):
        raise ValueError(f"file {file!r} is not a plain name")
    return file


def _parse_graph(values: Mapping[str, Any]) -> GraphSpec:
    tensors = {
        name: tuple(TensorSpec(spec["name"], spec["dtype"], tuple(spec["axes"])) for spec in values[name])
        for name in ("inputs", "outputs")
    }
    return GraphSpec(
        _plain_name(values["file"]),
        values["sha256"],
        values["size_bytes"],
        values["precision"],
        tensors["inputs"],
        tensors["outputs"],
    )


def _check_file(path: Path, spec: GraphSpec | WeightsSpec) -> None:
    if not os.path.isfile(path):  # noqa: PTH113
        raise BundleNotFoundError(f"{path}: the bundle is incomplete, this file is missing; export again")
    size = path.stat().st_size
    if size != spec.size_bytes:
        raise BundleError(
            f"{path}: was altered or cut ({size} bytes, the manifest says {spec.size_bytes}); export again"
        )
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: can't be read ({detail(error)})") from error
    if sha256 != spec.sha256:
        raise BundleError(f"{path}: was altered after the export (its sha256 doesn't match the manifest); export again")


def _check_locations(path: Path, weights: WeightsSpec | None) -> None:
    """Raise BundleError if a graph takes weights from another file: ONNX Runtime opens any path that a graph names."""
    try:
        locations = external_locations(path)
    except (ValueError, OSError) as error:
        raise BundleError(f"{path}: not an ONNX graph ({detail(error)}); export again") from error
    if foreign := locations - ({weights.file} if weights else set()):
        raise BundleError(f"{path}: takes weights from {min(foreign)!r}, which is not a file of this bundle")
