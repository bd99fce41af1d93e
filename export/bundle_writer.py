"""Writes a bundle from a torch model. Nothing is written where a graph does not match torch within the thresholds."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dmcodec import __version__
from dmcodec.bundle import DOWNSAMPLER_STEPS, UPSAMPLER_STEPS, Bundle, GraphSpec, Manifest, state_size, write_manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, ParityError
from dmcodec.export.int8.choice import int8_graphs
from dmcodec.export.int8.speech import Speech, built_in_speech, speech_of_folder
from dmcodec.files import file_sha256, output_folder
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id
from dmcodec.precision import FP32, PRECISIONS
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.plain import fitting_form
from dmcodec.runtime.stream_decoder import Run

from .encoder_context import measure_context
from .graph_builder import OPSET, Graph
from .graphs import build_graphs
from .look_ahead import measure_look_ahead
from .parity import ParityCase, check_parity, num_cases, require_parity, summary
from .parts_parity import check_parts
from .reference import TorchReference
from .torch_model import torch_model
from .weights import SharedWeights

# Called with a stage of the export, the number of its steps that are done, and the number of all its steps.
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Source:
    """Origin of the weights, for the manifest: a checkpoint file, or the seed of untrained weights."""

    checkpoint: Path | None = None
    seed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values for the manifest."""
        if self.checkpoint is None:
            return {"checkpoint": None, "checkpoint_sha256": None, "seed": self.seed}
        sha256 = file_sha256(self.checkpoint)
        return {"checkpoint": self.checkpoint.name, "checkpoint_sha256": sha256, "seed": None}


@dataclasses.dataclass(frozen=True)
class _Origin:
    """What the manifest says of the weights besides what is measured.

    Attributes:
        model_id: of the weights.
        provenance: where they come from, without versions.
        thresholds_of: the precision whose thresholds the graphs must reach against the model.
        parity: what is added to the record of parity.
    """

    model_id: str
    provenance: Mapping[str, Any]
    thresholds_of: str
    parity: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def export_bundle(
    codec: DMCodec,
    out: str | Path,
    precision: str = "fp32",
    source: Source | None = None,
    force: bool = False,
    progress: Progress | None = None,
    calibration: str | Path | None = None,
) -> Bundle:
    """Export a torch model to the bundle `out`, after its graphs were compared with the model.

    Args:
        codec: the model.
        out: the folder to write; it appears only when everything succeeded.
        precision: a name of `dmcodec.precision.PRECISIONS`.
        source: origin of the weights, for the manifest.
        force: replace `out` where it exists.
        progress: called as the export goes on.
        calibration: folder of speech on which int8 tries layers; by default the sample speech of the package.

    Returns:
        The written bundle.

    Raises:
        ArgumentError: the precision is not known, or `calibration` is not for it, or holds too few clips.
        InputNotFoundError: no such folder, or no audio in it.
        ParityError: a figure of a graph is below its threshold (`dmcodec.precision`).
        OutputError: `out` exists, or can't be written.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision {precision!r} can't be exported to ONNX; use one of {', '.join(PRECISIONS)}")
    report = progress or (lambda _stage, _done, _total: None)
    speech = _speech(codec.config, precision, calibration)
    with output_folder(out, force) as folder:
        origin = _Origin(model_id(codec), (source or Source()).to_dict(), precision)
        # In a function of its own, so that the loaded graphs are released: Windows does not rename open files.
        manifest = _write(folder, codec.eval(), precision, origin, report, speech)
    return Bundle(Path(out), manifest)


def export_again(
    bundle: Bundle,
    out: str | Path,
    force: bool = False,
    progress: Progress | None = None,
    precision: str | None = None,
    calibration: str | Path | None = None,
) -> Bundle:
    """Write a bundle again with the graphs of today, from the weights that it holds.

    Its model id, precision, weights and origin stay, so its tokens are those of the same model. The graphs are compared
    with torch with the bundle's weights; what the first export measured against the checkpoint stays in the manifest,
    as `parity.first_export` and `provenance.first_export`. TensorRT engines are not taken along: they are of the old
    graphs.

    Args:
        bundle: written by any earlier version.
        out: the folder to write; it may be that of `bundle`, with `force`.
        force: replace `out` where it exists.
        progress: called as the export goes on.
        precision: "int8" for a bundle of float32 arithmetic; by default that of `bundle`.
        calibration: as for `export_bundle`.

    Raises:
        ArgumentError: `precision` is neither; or `calibration`, as in `export_bundle`.
        InputNotFoundError: as `export_bundle`.
        ExportError: the graphs were not written by `dmcodec export`.
        ParityError: a figure of a graph is below its threshold (`dmcodec.precision`).
        OutputError: `out` exists, or can't be written.
    """
    report = progress or (lambda _stage, _done, _total: None)
    manifest = bundle.manifest
    chosen = _precision_of_copy(bundle, precision)
    speech = _speech(manifest.config, chosen, calibration)
    codec = torch_model(manifest.config, {name: bundle.graph_path(name) for name in manifest.graphs})
    versions = ("exporter", "opset", "torch", "onnx", OnnxRuntimeBackend.name)
    first = {name: manifest.provenance.get(name) for name in versions}  # where the bundle has no earlier record
    kept = {name: value for name, value in manifest.provenance.items() if name not in versions}
    measured = {name: value for name, value in manifest.parity.items() if name != "cases"}
    origin = _Origin(
        manifest.model_id,
        {"first_export": first, **kept},
        chosen if PRECISIONS[chosen].has_int8 else manifest.arithmetic,
        {"first_export": manifest.parity.get("first_export", measured)},
    )
    with output_folder(out, force) as folder:
        written = _write(folder, codec, chosen, origin, report, speech)
    return Bundle(Path(out), written)


def _precision_of_copy(bundle: Bundle, precision: str | None) -> str:
    """Return the precision of a bundle that is written again.

    Raises:
        ArgumentError: the bundle's weights can't be exported to it.
    """
    own = bundle.manifest.precision
    if precision in (None, own):
        return own
    row = PRECISIONS.get(precision or own)
    if row is not None and row.has_int8 and bundle.manifest.arithmetic == FP32.name:
        return row.name
    raise ArgumentError(
        f"--precision {precision}: {bundle.path} is {own}, and keeps its weights; "
        "leave --precision out, or export the checkpoint"
    )


def _speech(config: CodecConfig, precision: str, calibration: str | Path | None) -> Speech | None:
    """Return the speech on which layers are tried; None for precisions that try none.

    Raises:
        ArgumentError, InputNotFoundError: as `export_bundle`.
    """
    if not PRECISIONS[precision].has_int8:
        if calibration is not None:
            raise ArgumentError(f"--calibration is for --precision int8, not {precision}; leave it out")
        return None
    return built_in_speech(config) if calibration is None else speech_of_folder(Path(calibration), config)


def _write(
    folder: Path, codec: DMCodec, precision: str, origin: _Origin, report: Progress, speech: Speech | None
) -> Manifest:
    report("building graphs", 0, 1)
    graphs = build_graphs(codec, precision)
    int8: Mapping[str, Any] = {}
    if speech is not None:
        chosen = int8_graphs(graphs, codec.config, speech, report)
        graphs, int8 = dict(chosen.graphs), chosen.record
    weights = SharedWeights(folder)
    specs = {name: _write_graph(folder, name, graph, weights) for name, graph in graphs.items()}
    report("building graphs", 1, 1)
    backend = OnnxRuntimeBackend()
    run = _runner(codec.config, backend, folder, specs)
    decoder_columns, encoder_columns = (state_size(specs, steps) for steps in (UPSAMPLER_STEPS, DOWNSAMPLER_STEPS))
    if PRECISIONS[origin.thresholds_of].rounds_weights:  # the error of rounding must not hide an error of a graph
        rounded = torch_model(codec.config, {name: folder / spec.file for name, spec in specs.items()})
        _checked_cases(TorchReference(rounded), run, decoder_columns, "fp32", report)
        check_parts(TorchReference(rounded), run, "fp32", encoder_columns)
    cases = _checked_cases(TorchReference(codec), run, decoder_columns, origin.thresholds_of, report)
    sweeps = check_parts(TorchReference(codec), run, origin.thresholds_of, encoder_columns)
    report("measuring context", 0, 1)
    encoder_context = measure_context(codec.config, run)
    report("measuring context", 1, 1)
    report("measuring look-ahead", 0, 1)
    look_ahead = measure_look_ahead(codec.config, run)
    report("measuring look-ahead", 1, 1)
    manifest = Manifest(
        config=codec.config,
        model_id=origin.model_id,
        precision=precision,
        graphs=specs,
        provenance={**origin.provenance, **_versions(backend)},
        parity={**summary(cases, origin.thresholds_of), **dataclasses.asdict(sweeps), **origin.parity},
        encoder_context=encoder_context,
        weights=weights.spec(),
        look_ahead=look_ahead,
        int8=int8,
    )
    write_manifest(folder, manifest)
    return manifest


def _write_graph(folder: Path, name: str, graph: Graph, weights: SharedWeights) -> GraphSpec:
    path = folder / f"{name}.onnx"
    weights.move_from(graph.model)
    path.write_bytes(graph.model.SerializeToString())
    return GraphSpec(path.name, file_sha256(path), path.stat().st_size, graph.precision, graph.inputs, graph.outputs)


def _runner(config: CodecConfig, backend: OnnxRuntimeBackend, folder: Path, specs: Mapping[str, GraphSpec]) -> Run:
    """Return what runs a graph, or its plain form, as the runtime does: batches of one length prove the plain forms."""
    runners = {name: backend.load(folder / spec.file, spec) for name, spec in specs.items()}

    def run(name: str, **inputs: Any) -> list[NDArray[Any]]:
        form, chosen = fitting_form(config, specs, name, inputs)
        return runners[form].run(chosen)

    return run


def _checked_cases(
    reference: TorchReference, run: Run, columns: int, precision: str, report: Progress
) -> list[ParityCase]:
    """Compare the graphs with the reference; raise ParityError where a figure is below its threshold."""
    cases = []
    total = num_cases(reference.config)
    try:
        for case in check_parity(reference, run, columns):
            cases.append(case)
            report("checking parity", len(cases), total)
        require_parity(cases, precision)
    except ParityError as error:
        raise ParityError(f"{error}. The bundle was not written") from None
    return cases


def _versions(backend: OnnxRuntimeBackend) -> dict[str, Any]:
    packages = {name: importlib.metadata.version(name) for name in ("torch", "onnx")}
    return {"exporter": f"dmcodec {__version__}", "opset": OPSET, **packages, backend.name: backend.version}
