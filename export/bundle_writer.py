"""Export: a torch model becomes a bundle, or nothing where the graphs don't say what torch says."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dmcodec import __version__
from dmcodec.bundle import Bundle, GraphSpec, Manifest, write_manifest
from dmcodec.errors import ArgumentError, ParityError
from dmcodec.files import file_sha256, output_folder
from dmcodec.nn import DMCodec
from dmcodec.nn.checkpoint import model_id
from dmcodec.precision import PRECISIONS
from dmcodec.runtime.onnxruntime_backend import OnnxRuntimeBackend
from dmcodec.runtime.stream_decoder import Run

from .encoder_context import measure_context
from .graph_builder import OPSET, Graph
from .graphs import build_graphs
from .parity import ParityCase, check_parity, num_cases, require_parity, summary
from .reference import TorchReference
from .torch_model import torch_model
from .weights import SharedWeights

# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the weights came from: a checkpoint file, or a seed for untrained ones."""

    checkpoint: Path | None = None
    seed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for the manifest."""
        if self.checkpoint is None:
            return {"checkpoint": None, "checkpoint_sha256": None, "seed": self.seed}
        sha256 = file_sha256(self.checkpoint)
        return {"checkpoint": self.checkpoint.name, "checkpoint_sha256": sha256, "seed": None}


def export_bundle(
    codec: DMCodec,
    out: str | Path,
    precision: str = "fp32",
    source: Source | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Writes the bundle `out`, and proves its graphs against `codec` first.

    Args:
        codec: the model.
        out: the folder to write; it appears only when everything succeeded.
        precision: "fp32", or "fp16" for the encoder and the decoder (the RVQ stays float32), or "fp16-weights", which
            stores the large weights in half precision and computes in float32.
        source: where the weights came from, for the manifest.
        force: replace `out` where it exists.
        progress: called as the work goes on.

    Raises:
        ParityError: a graph is below the thresholds of `dmcodec.export.parity`.
        OutputError: `out` exists, or can't be written.
    """
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision {precision!r} can't be exported to ONNX; use one of {', '.join(PRECISIONS)}")
    report = progress or (lambda _stage, _done, _total: None)
    with output_folder(out, force) as folder:
        # In a function of its own: loaded graphs hold the weights' file, which Windows doesn't rename then.
        manifest = _write(folder, codec.eval(), precision, source or Source(), report)
    return Bundle(Path(out), manifest)


def _write(folder: Path, codec: DMCodec, precision: str, source: Source, report: Progress) -> Manifest:
    report("building graphs", 0, 1)
    graphs = build_graphs(codec, precision)
    weights = SharedWeights(folder)
    specs = {name: _write_graph(folder, name, graph, weights) for name, graph in graphs.items()}
    report("building graphs", 1, 1)
    backend = OnnxRuntimeBackend()
    run = _runner(backend, folder, specs)
    if PRECISIONS[precision].rounds_weights:  # what rounding costs mustn't hide what a graph does wrong
        rounded = torch_model(codec.config, {name: folder / spec.file for name, spec in specs.items()})
        _proven(TorchReference(rounded), run, "fp32", report)
    cases = _proven(TorchReference(codec), run, precision, report)
    report("measuring context", 0, 1)
    encoder_context = measure_context(codec.config, run)
    report("measuring context", 1, 1)
    manifest = Manifest(
        config=codec.config,
        model_id=model_id(codec),
        precision=precision,
        graphs=specs,
        provenance={**source.to_dict(), **_versions(backend)},
        parity=summary(cases, precision),
        encoder_context=encoder_context,
        weights=weights.spec(),
    )
    write_manifest(folder, manifest)
    return manifest


def _write_graph(folder: Path, name: str, graph: Graph, weights: SharedWeights) -> GraphSpec:
    path = folder / f"{name}.onnx"
    weights.take(graph.model)
    path.write_bytes(graph.model.SerializeToString())
    return GraphSpec(path.name, file_sha256(path), path.stat().st_size, graph.precision, graph.inputs, graph.outputs)


def _runner(backend: OnnxRuntimeBackend, folder: Path, specs: Mapping[str, GraphSpec]) -> Run:
    runners = {name: backend.load(folder / spec.file, spec) for name, spec in specs.items()}

    def run(name: str, **inputs: Any) -> list[NDArray[Any]]:
        return runners[name].run(inputs)

    return run


def _proven(reference: TorchReference, run: Run, precision: str, report: Progress) -> list[ParityCase]:
    cases = []
    total = num_cases(reference.config)
    try:
        for case in check_parity(reference, run):
            cases.append(case)
            report("checking parity", len(cases), total)
        require_parity(cases, precision)
    except ParityError as error:
        raise ParityError(f"{error}. The bundle was not written") from None
    return cases


def _versions(backend: OnnxRuntimeBackend) -> dict[str, Any]:
    packages = {name: importlib.metadata.version(name) for name in ("torch", "onnx")}
    return {"exporter": f"dmcodec {__version__}", "opset": OPSET, **packages, backend.name: backend.version}
