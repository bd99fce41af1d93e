"""Engines of a bundle's graphs: plan which ones to build, build them, inspect them, and store them."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dmcodec import __version__
from dmcodec.bundle import GRAPH_NAMES, STEPS, Bundle, read_manifest, write_manifest
from dmcodec.errors import ArgumentError, EngineError, EngineWarning
from dmcodec.files import locked
from dmcodec.precision import refuse_int8
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.engine_store import (
    FOLDER,
    EngineKey,
    EngineRecord,
    EngineStore,
    engine_folder,
    this_system,
)
from dmcodec.runtime.tensorrt.library import TENSORRT, Library
from dmcodec.runtime.tensorrt.profiles import ShapeRequest

from .builder import BuildProgress, TimingCache, build_plan
from .inspection import inspect_engine, precision_problem
from .options import BuildOptions
from .rewrite import RULES_VERSION, rewritten


@dataclasses.dataclass(frozen=True)
class PlannedEngine:
    """An engine that was asked for.

    Attributes:
        key: everything that it depends on.
        build: whether it has to be built.
        reason: why it has, or has not, to be built.
        record: of the engine that exists; None where there is none.
    """

    key: EngineKey
    build: bool
    reason: str
    record: EngineRecord | None = None


@dataclasses.dataclass(frozen=True)
class BuildReport:
    """An engine that exists after a build.

    Attributes:
        record: its record.
        path: its file.
        reason: why it was built or kept.
        build_s: seconds that the build took; None where the engine existed before.
    """

    record: EngineRecord
    path: Path
    reason: str
    build_s: float | None


def plan_engines(
    bundle: Bundle,
    library: Library,
    gpu: Gpu | None,
    request: ShapeRequest,
    options: BuildOptions,
    graphs: Sequence[str] = (),
    engine_cache: str | Path | None = None,
    rebuild: bool = False,
) -> list[PlannedEngine]:
    """Plan which engines a request needs, and which of them have to be built. Nothing is built or written.

    Args:
        bundle: the bundle of the graphs.
        library: the TensorRT to build with.
        gpu: of this machine; None where there is none.
        request: the shapes that the engines have to run.
        options: options of the builder.
        graphs: names of the graphs to build; empty for GRAPH_NAMES. Between graphs that all have engines, data stays on
            the device.
        engine_cache: folder of the engines, instead of the one within the bundle.
        rebuild: build engines that exist, too.

    Raises:
        ArgumentError, GpuError: the library does not support an option, or the bundle's precision.
    """
    refuse_int8(bundle.manifest.precision, "in TensorRT", "export the checkpoint with --precision fp16")
    options.check(library, gpu)
    known = [name for name in bundle.manifest.graphs if name not in STEPS.values()]  # which run on the CPU only
    if unknown := [name for name in graphs if name not in known]:
        raise ArgumentError(f"--graphs: no graph {', '.join(unknown)} for TensorRT; there are {', '.join(known)}")
    store = EngineStore(engine_folder(bundle.path, engine_cache))
    keys = [_key(bundle, name, library, gpu, request, options) for name in graphs or GRAPH_NAMES]
    return [_planned(store, key, rebuild) for key in keys]


def build_engines(
    bundle: Bundle,
    library: Library,
    gpu: Gpu | None,
    planned: Sequence[PlannedEngine],
    options: BuildOptions,
    engine_cache: str | Path | None = None,
    progress: BuildProgress | None = None,
) -> list[BuildReport]:
    """Build the engines that `plan_engines` planned. Each is stored as soon as it is built.

    Raises:
        EngineBuildError: a graph can't be built.
        OutputError: the folder of engines can't be written to.

    Warns:
        EngineWarning: an engine is not, or not known to be, in the graph's precision; its record says so, too.
    """
    folder = engine_folder(bundle.path, engine_cache)
    reports = []
    for item in planned:
        if item.record is not None and not item.build:
            reports.append(BuildReport(item.record, folder / item.key.file, item.reason, None))
            continue
        record, build_s = _build(bundle, library, gpu, item.key, options, folder, progress)
        reports.append(BuildReport(record, folder / item.key.file, item.reason, build_s))
    if folder == bundle.path / FOLDER:
        _list_in_manifest(bundle.path, [report.record for report in reports])
    return reports


def _key(
    bundle: Bundle, name: str, library: Library, gpu: Gpu | None, request: ShapeRequest, options: BuildOptions
) -> EngineKey:
    spec = bundle.manifest.graphs[name]
    return EngineKey(
        graph=name,
        graph_sha256=spec.sha256,
        rules=RULES_VERSION,
        precision=spec.precision,
        profiles=request.profiles(name, spec, bundle.manifest.config),
        flavour=library.flavour,
        version=library.version,
        architectures=options.architectures(gpu if library.flavour == TENSORRT else None),
        system=this_system(),
        options=options.to_key(library),
    )


def _planned(store: EngineStore, key: EngineKey, rebuild: bool) -> PlannedEngine:
    try:
        record = store.find(key)
    except EngineError as error:
        return PlannedEngine(key, True, str(error))
    if record is None:
        return PlannedEngine(key, True, "not built yet")
    if rebuild:
        return PlannedEngine(key, True, "--rebuild", record)
    return PlannedEngine(key, False, "up to date", record)


def _build(
    bundle: Bundle,
    library: Library,
    gpu: Gpu | None,
    key: EngineKey,
    options: BuildOptions,
    folder: Path,
    progress: BuildProgress | None,
) -> tuple[EngineRecord, float]:
    timing = TimingCache(library, folder, gpu)
    model = rewritten(bundle.graph_path(key.graph))
    start = time.perf_counter()

    def report(phase: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"{key.graph}: {phase}", done, total)

    built = build_plan(library, key.graph, model, key.profiles, options, timing.load(), report)
    build_s = time.perf_counter() - start
    timing.merge(built.timing_cache)
    inspection = inspect_engine(library, key.graph, built.plan, built.lines, gpu, options.version_compatible)
    problem = precision_problem(key.precision, inspection)
    if problem is not None:
        advice = "compare its results with `dmcodec verify`"
        warnings.warn(f"{key.file}: {problem}; {advice}", EngineWarning, stacklevel=3)
    facts: dict[str, Any] = {
        "precision": key.precision if problem is None else inspection.precision,
        "layers": inspection.layers,
        "layer_outputs": inspection.tensors,
        "inspected_by": inspection.source,
        "precision_problem": problem,
        "build_s": round(build_s, 3),
        "built_by": f"dmcodec {__version__}",
        "gpu": gpu.name if gpu is not None else None,
    }
    return EngineStore(folder).store(key, built.plan, facts), build_s


def _list_in_manifest(path: Path, records: Sequence[EngineRecord]) -> None:
    """Add engines to the bundle's manifest, and remove those whose files no longer exist."""
    new = {record.key.file: _manifest_entry(record) for record in records}
    before = read_manifest(path).engines
    if all(before.get(file) == entry for file, entry in new.items()):
        return  # don't write: the bundle may be read-only
    with locked(path / FOLDER / "manifest.lock"):
        manifest = read_manifest(path)
        kept = {file: entry for file, entry in manifest.engines.items() if (path / FOLDER / file).is_file()}
        write_manifest(path, dataclasses.replace(manifest, engines={**kept, **new}))


def _manifest_entry(record: EngineRecord) -> dict[str, Any]:
    key = record.key
    return {
        "graph": key.graph,
        "precision": record.facts["precision"],
        "flavour": key.flavour,
        "version": key.version,
        "architectures": list(key.architectures),
        "profiles": [profile.to_dict() for profile in key.profiles],
        "size_bytes": record.size_bytes,
        "sha256": record.sha256,
        "layer_outputs": dict(record.facts["layer_outputs"]),
    }
