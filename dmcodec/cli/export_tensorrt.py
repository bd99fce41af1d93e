"""`dmcodec export --format trt`: TensorRT engines of a bundle; its options, its plan and its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from dmcodec.errors import ArgumentError
from dmcodec.precision import refuse_int8

from .common import console, listed, missing_dependency, note, print_json
from .progress import show_progress

if TYPE_CHECKING:
    from dmcodec.bundle import Bundle
    from dmcodec.export.tensorrt import BuildOptions, BuildReport, PlannedEngine
    from dmcodec.runtime.tensorrt.profiles import ShapeRequest

ENGINES = "TensorRT engines (--format trt)"
PROVIDER_GRAPHS = "onnxruntime"  # the flavour that stands for the graphs of its providers

ProfileOption = Annotated[
    str | None,
    typer.Option(
        help="Durations: smallest:usual:largest (default: 0.1s:5s:30s).", metavar="A:B:C", rich_help_panel=ENGINES
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        help="Batch sizes: smallest:usual:largest (default: 1:1:16).", metavar="A:B:C", rich_help_panel=ENGINES
    ),
]
FixedShapesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Fixed shapes, as 1s,5sx4: 1 s, and 5 s in batches of 4 (default: none).",
        metavar="SHAPE,...",
        rich_help_panel=ENGINES,
    ),
]
GraphsOption = Annotated[
    list[str] | None,
    typer.Option(help="Graphs to build engines of (default: all).", metavar="NAME,...", rich_help_panel=ENGINES),
]
FlavourOption = Annotated[
    str | None,
    typer.Option(
        help="tensorrt, tensorrt-rtx, or onnxruntime: the graphs that its providers tensorrt and nv-tensorrt-rtx build "
        "engines from (default: the first of the first two that is installed).",
        metavar="NAME",
        rich_help_panel=ENGINES,
    ),
]
ComputeCapabilityOption = Annotated[
    list[str] | None,
    typer.Option(
        help="GPUs to compile for ahead of time, as 8.6,8.9; tensorrt-rtx only (default: at the first run).",
        metavar="X.Y,...",
        rich_help_panel=ENGINES,
    ),
]
HardwareCompatibilityOption = Annotated[
    str,
    typer.Option(
        help="Other GPUs that may run the engines: none, ampere-plus or same-compute-capability (default: none).",
        metavar="NAME",
        rich_help_panel=ENGINES,
    ),
]
VersionCompatibleOption = Annotated[
    bool,
    typer.Option(
        "--version-compatible", help="Let later versions of TensorRT run the engines.", rich_help_panel=ENGINES
    ),
]
RefitOption = Annotated[
    bool, typer.Option("--refit", help="Let the weights be replaced later.", rich_help_panel=ENGINES)
]
StripPlanOption = Annotated[
    bool,
    typer.Option("--strip-plan", help="Leave out the weights that a refit can put back.", rich_help_panel=ENGINES),
]
WorkspaceOption = Annotated[
    int | None,
    typer.Option(
        help="Limit of the builder's scratch memory in MiB (default: TensorRT's).",
        metavar="MB",
        rich_help_panel=ENGINES,
    ),
]
Tf32Option = Annotated[
    bool,
    typer.Option("--tf32", help="Allow TF32 in fp32 products; this changes some codes.", rich_help_panel=ENGINES),
]
RebuildOption = Annotated[
    bool, typer.Option("--rebuild", help="Build engines that exist already, too.", rich_help_panel=ENGINES)
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only print what would be built, and why.", rich_help_panel=ENGINES)
]


class EngineChoice(NamedTuple):
    """Which engines to build, and where they go.

    Attributes:
        request: shapes of the optimization profiles.
        graphs: names of graphs; empty: all.
        flavour: "tensorrt", "tensorrt-rtx", "onnxruntime" (graphs for its providers), or None for the first that is
            installed.
        engine_cache: folder of the engines; None: within the bundle.
        rebuild: whether engines that exist are built, too.
        dry_run: whether only the plan is printed.
    """

    request: ShapeRequest
    graphs: tuple[str, ...]
    flavour: str | None
    engine_cache: Path | None
    rebuild: bool
    dry_run: bool


def build_options(
    *,
    version_compatible: bool,
    hardware_compatibility: str,
    refit: bool,
    strip_plan: bool,
    workspace_mb: int | None,
    tf32: bool,
    compute_capability: Sequence[str] | None,
) -> BuildOptions:
    """Return the options of the builder.

    Raises:
        ArgumentError: a value is not known or out of bounds.
        MissingDependencyError: a package that export needs is not installed.
    """
    try:
        from dmcodec.export.tensorrt import BuildOptions
    except ModuleNotFoundError as error:
        raise missing_dependency("--format trt", error, "export") from None
    return BuildOptions(
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        refit=refit,
        strip_plan=strip_plan,
        workspace_mb=workspace_mb,
        tf32=tf32,
        compute_capabilities=listed("--compute-capability", compute_capability),
    )


def export_engines(
    bundle_path: Path | None,
    write: Callable[[], Bundle],
    precision: str | None,
    choice: EngineChoice,
    options: BuildOptions,
    as_json: bool,
) -> None:
    """Build the engines of the bundle at `bundle_path`, or where it is None of the bundle that `write` exports."""
    from dmcodec.bundle import Bundle
    from dmcodec.export.tensorrt import build_engines, plan_engines
    from dmcodec.runtime.tensorrt.driver import gpu_or_none
    from dmcodec.runtime.tensorrt.library import Library

    refuse_int8(precision or "fp32", "in TensorRT", "take --precision fp16")
    if choice.flavour == PROVIDER_GRAPHS:
        _export_provider_graphs(bundle_path, write, precision, choice, options, as_json)
        return
    # Everything is checked before the export, which takes minutes.
    library, gpu = Library.find(choice.flavour), gpu_or_none()
    options.check(library, gpu)
    if choice.dry_run and bundle_path is None:
        raise ArgumentError("--dry-run: needs --bundle, since the names of engines depend on its graphs")
    bundle = write() if bundle_path is None else Bundle.open(bundle_path)
    _require_precision(bundle, precision)
    planned = plan_engines(
        bundle, library, gpu, choice.request, options, choice.graphs, choice.engine_cache, choice.rebuild
    )
    if choice.dry_run:
        _print_plan(planned, as_json)
        return
    with show_progress() as report:
        reports = build_engines(bundle, library, gpu, planned, options, choice.engine_cache, report)
    _print_reports(bundle, reports, as_json)
    _note_folder(choice)


def _export_provider_graphs(
    bundle_path: Path | None,
    write: Callable[[], Bundle],
    precision: str | None,
    choice: EngineChoice,
    options: BuildOptions,
    as_json: bool,
) -> None:
    """Write the graphs that ONNX Runtime's providers build engines from."""
    from dmcodec.bundle import Bundle
    from dmcodec.export.tensorrt import BuildOptions
    from dmcodec.export.tensorrt.provider_graphs import write_provider_graphs

    if options != BuildOptions() or choice.rebuild or choice.dry_run:
        raise ArgumentError(
            "--flavour onnxruntime: writes graphs and builds nothing; of the options of engines, it takes --profile, "
            "--batch, --fixed-shapes, --graphs and --engine-cache only"
        )
    bundle = write() if bundle_path is None else Bundle.open(bundle_path)
    _require_precision(bundle, precision)
    with show_progress() as report:
        written = write_provider_graphs(bundle, choice.request, choice.graphs, choice.engine_cache, report)
    if as_json:
        rows = [
            {"graph": w.graph, "path": str(w.path), "size_bytes": w.size_bytes, "profile": w.profile.to_dict()}
            for w in written
        ]
        print_json({"bundle": str(bundle.path), "graphs": rows})
        return
    for item in written:
        typer.echo(f"{item.path}: {item.size_bytes / 1e6:.1f} MB, for {item.profile}")
    typer.echo("onnxruntime builds engines from them at their first run, and keeps those beside them")
    _note_folder(choice)


def _note_folder(choice: EngineChoice) -> None:
    if choice.engine_cache is not None:
        note(f"the engines are outside the bundle; name them when you run it: --engine-cache {choice.engine_cache}")


def _require_precision(bundle: Bundle, precision: str | None) -> None:
    found = bundle.manifest.precision
    if precision is not None and precision != found:
        raise ArgumentError(
            f"--precision {precision}: {bundle.path} is {found}, and an engine has the precision of its graph; run "
            f"`dmcodec export --format trt --checkpoint FILE --out BUNDLE --precision {precision}`"
        )


def _print_plan(planned: Sequence[PlannedEngine], as_json: bool) -> None:
    if as_json:
        rows = [{"build": p.build, "reason": p.reason, "file": p.key.file, "key": p.key.to_dict()} for p in planned]
        print_json({"engines": rows})
        return
    for item in planned:
        key = item.key
        action = "build" if item.build else "keep "
        runs_on = f"{key.flavour} {key.version}, {', '.join(key.architectures)}"
        typer.echo(f"{action} {key.file} ({item.reason}): {key.precision}, {runs_on}")
        for profile in key.profiles:
            typer.echo(f"      profile {profile}")


def _print_reports(bundle: Bundle, reports: Sequence[BuildReport], as_json: bool) -> None:
    if as_json:
        rows = [{"path": str(r.path), "build_s": r.build_s, **r.record.to_dict()} for r in reports]
        print_json({"bundle": str(bundle.path), "engines": rows})
        return
    from rich.table import Table

    table = Table(title=f"Engines of {bundle.path}")
    for title in ("graph", "precision", "layers' outputs", "profiles", "for", "MB", "built in"):
        table.add_column(title, overflow="fold")
    for report in reports:
        key, facts = report.record.key, report.record.facts
        table.add_row(
            key.graph,
            facts["precision"],
            ", ".join(f"{count} {name}" for name, count in facts["layer_outputs"].items()),
            "; ".join(profile.name for profile in key.profiles),
            ", ".join(key.architectures),
            f"{report.record.size_bytes / 1e6:.1f}",
            report.reason if report.build_s is None else f"{report.build_s:.1f} s",
        )
    console().print(table)
    built = [report for report in reports if report.build_s is not None]
    first = reports[0].record
    typer.echo(
        f"{reports[0].path.parent}: {len(built)} built, {len(reports) - len(built)} up to date, "
        f"{first.key.flavour} {first.key.version}, precision by the {first.facts['inspected_by']}"
    )
