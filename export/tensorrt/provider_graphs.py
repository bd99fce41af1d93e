"""Writes the graphs that ONNX Runtime's TensorRT providers build their engines from, and the shapes to build for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dmcodec.bundle import GRAPH_NAMES, Bundle, encoder_part_names
from dmcodec.errors import ArgumentError
from dmcodec.precision import refuse_int8
from dmcodec.runtime.provider_graphs import ProviderGraphs, joined
from dmcodec.runtime.providers import RVQ_GRAPHS
from dmcodec.runtime.tensorrt.profiles import Profile, ShapeRange, ShapeRequest

from .builder import BuildProgress
from .rewrite import RULES_VERSION, rewritten


@dataclasses.dataclass(frozen=True)
class WrittenGraph:
    """A graph that was written: its name in the bundle, its file, the file's size, and the shapes to build for."""

    graph: str
    path: Path
    size_bytes: int
    profile: Profile


def write_provider_graphs(
    bundle: Bundle,
    request: ShapeRequest,
    graphs: Sequence[str] = (),
    engine_cache: str | Path | None = None,
    progress: BuildProgress | None = None,
) -> list[WrittenGraph]:
    """Rewrite graphs and store them in the folder of the bundle's engines. This needs no TensorRT and no GPU.

    Args:
        bundle: of the graphs.
        request: the shapes that the engines have to run.
        graphs: names of the graphs; empty for all that TensorRT runs (the RVQ never is).
        engine_cache: folder of the engines, instead of the one within the bundle.
        progress: called with the name of a graph, how many are done, and how many there are.

    Raises:
        ArgumentError: no such graph, or TensorRT does not run the bundle's precision.
        ExportError: the rules don't cover a graph.
        OutputError: the folder can't be written to.
    """
    refuse_int8(bundle.manifest.precision, "in TensorRT", "export the checkpoint with --precision fp16")
    specs, names = bundle.manifest.graphs, _names(bundle)
    if wrong := [name for name in graphs if name not in names]:
        raise ArgumentError(
            f"--graphs: no graph {', '.join(wrong)} for ONNX Runtime's TensorRT; there are {', '.join(names)}"
        )
    chosen = graphs or names
    made = {}
    for done, name in enumerate(chosen):
        if progress is not None:
            progress(name, done, len(chosen))
        model = rewritten(bundle.graph_path(name))
        made[name] = (model, specs[name], RULES_VERSION, _profile(bundle, name, request))
    if progress is not None:
        progress("graphs", len(chosen), len(chosen))
    store = ProviderGraphs(bundle.path, engine_cache)
    written = store.write(made)
    return [
        WrittenGraph(name, store.folder / written[name].file, len(made[name][0]), written[name].profile)
        for name in chosen
    ]


def _names(bundle: Bundle) -> list[str]:
    """Return the graphs that a GPU provider runs, but for the RVQ."""
    manifest = bundle.manifest
    return [
        name
        for name in (*GRAPH_NAMES, *encoder_part_names(manifest.config))
        if name in manifest.graphs and name not in RVQ_GRAPHS
    ]


def _profile(bundle: Bundle, name: str, request: ShapeRequest) -> Profile:
    """Return the shapes of a graph in one profile. The encoder's parts run on stretches from one sample on."""
    graphs, config = bundle.manifest.graphs, bundle.manifest.config
    if name not in GRAPH_NAMES:
        whole = joined(request.profiles("encoder", graphs["encoder"], config)).inputs["waveform"]
        longest_s = whole.max[-1] / config.sample_rate
        request = ShapeRequest(
            ShapeRange((1 / config.sample_rate, min(1.0, longest_s), longest_s), (1, whole.opt[0], whole.max[0]))
        )
    return joined(request.profiles(name, graphs[name], config))
