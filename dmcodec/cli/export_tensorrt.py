"""The part of `dmcodec export --format trt` that builds engines: its options, and what it prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmcodec.errors import ArgumentError, MissingDependencyError

from .common import console, note, print_json, stage_bars

if TYPE_CHECKING:
    from dmcodec.bundle import Bundle
    from dmcodec.export.tensorrt import BuildReport, PlannedEngine

EngineBundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        help="trt, triton: start from this bundle (default, without weights: the trained one that comes with dmcodec).",
        metavar="DIR",
    ),
]
ProfileOption = Annotated[
    str | None, typer.Option(help="trt: smallest:usual:largest duration (default: 0.1s:5s:30s).", metavar="A:B:C")
]
BatchOption = Annotated[
    str | None, typer.Option(help="trt: smallest:usual:largest batch size (default: 1:1:16).", metavar="A:B:C")
]
LadderOption = Annotated[
    str | None, typer.Option(help="trt: fixed shapes, such as 1s,5s,5sx4 (5 s in batches of 4).", metavar="A,B,...")
]
GraphsOption = Annotated[
    str | None, typer.Option(help="trt: build these graphs only (default: all).", metavar="NAME,...")
]
FlavourOption = Annotated[
    str | None, typer.Option(help="trt: tensorrt or tensorrt-rtx (default: what is installed, in this order).")
]
ComputeCapabilityOption = Annotated[
    list[str] | None,
    typer.Option(
        help='trt: compile for this GPU ahead of time (RTX; repeat it, or 8.6,8.9, or "8.6 8.9").', metavar="8.6"
    ),
]
RebuildOption = Annotated[bool, typer.Option("--rebuild", help="trt: build engines that are there, too.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="trt: only print what would be built, and why.")]
VersionCompatibleOption = Annotated[
    bool, typer.Option("--version-compatible", help="trt: later versions of TensorRT may run the engines.")
]
HardwareCompatibilityOption = Annotated[
    str, typer.Option(help="trt: other GPUs that may run them: none, ampere-plus, same-compute-capability.")
]
RefitOption = Annotated[bool, typer.Option("--refit", help="trt: their weights can be replaced.")]
StripPlanOption = Annotated[bool, typer.Option("--strip-plan", help="trt: leave out weights that a refit puts back.")]
WorkspaceOption = Annotated[int | None, typer.Option(help="trt: bound of the builder's scratch memory in MiB.")]
Tf32Option = Annotated[bool, typer.Option("--tf32", help="trt: 10-bit mantissas in fp32 products; flips codes.")]


@dataclasses.dataclass(frozen=True)
class EngineCall:
    """The options for engines, as typed; the defaults are those of the command line."""

    bundle: Path | None = None
    profile: str | None = None
    batch: str | None = None
    ladder: str | None = None
    graphs: str | None = None
    flavour: str | None = None
    compute_capability: Sequence[str] | None = None
    engine_cache: Path | None = None
    rebuild: bool = False
    dry_run: bool = False
    version_compatible: bool = False
    hardware_compatibility: str = "none"
    refit: bool = False
    strip_plan: bool = False
    workspace_mb: int | None = None
    tf32: bool = False

    def given(self) -> list[str]:
        """Options that were given, as they are typed."""
        fields = dataclasses.fields(self)
        return [f"--{f.name.replace('_', '-')}" for f in fields if getattr(self, f.name) not in (f.default, [])]


def export_engines(call: EngineCall, precision: str | None, write: Callable[[], Bundle], as_json: bool) -> None:
    """Builds the engines of `call.bundle`, or of the bundle that `write` writes, and prints what came out."""
    from dmcodec.bundle import Bundle
    from dmcodec.runtime.tensorrt.driver import gpu_or_none
    from dmcodec.runtime.tensorrt.library import Library
    from dmcodec.runtime.tensorrt.profiles import ShapeRequest

    # All that can be wrong with the call comes before the export, which takes minutes.
    request = ShapeRequest.parse(call.profile, call.batch, call.ladder)
    try:
        from dmcodec.export.tensorrt import BuildOptions, build_engines, plan_engines
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'--format trt needs {error.name}, which is not installed; run `pip install "dmcodec[export]"`'
        ) from None
    library, gpu = Library.find(call.flavour), gpu_or_none()
    options = BuildOptions(
        version_compatible=call.version_compatible,
        hardware_compatibility=call.hardware_compatibility,
        refit=call.refit,
        strip_plan=call.strip_plan,
        workspace_mb=call.workspace_mb,
        tf32=call.tf32,
        compute_capabilities=_listed(",".join(call.compute_capability or ())),
    )
    options.check(library, gpu)
    if call.dry_run and call.bundle is None:
        raise ArgumentError("--dry-run: needs --bundle, since engines are named by the graphs they are built from")
    bundle = write() if call.bundle is None else Bundle.open(call.bundle)
    _require_precision(bundle, precision)
    planned = plan_engines(
        bundle, library, gpu, request, options, _listed(call.graphs or ""), call.engine_cache, call.rebuild
    )
    if call.dry_run:
        _print_plan(planned, as_json)
        return
    with stage_bars(hide_done=True) as report:
        reports = build_engines(bundle, library, gpu, planned, options, call.engine_cache, report)
    _print_reports(bundle, reports, as_json)
    if call.engine_cache is not None:
        note(f"the engines lie outside the bundle: name them when you run it: --engine-cache {call.engine_cache}")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _require_precision(bundle: Bundle, precision: str | None) -> None:
    found = bundle.manifest.precision
    if precision is not None and precision != found:
        raise ArgumentError(
            f"--precision {precision}: {bundle.path} is {found}, and engines have their graph's precision; "
            f"export the checkpoint again with --checkpoint FILE --out BUNDLE --precision {precision} --format trt"
        )


def _print_plan(planned: Sequence[PlannedEngine], as_json: bool) -> None:
    if as_json:
        rows = [{"build": p.build, "reason": p.reason, "file": p.key.file, "key": p.key.to_dict()} for p in planned]
        print_json({"engines": rows})
        return
    for item in planned:
        key = item.key
        verb = "build" if item.build else "keep "
        where = f"{key.flavour} {key.version}, {', '.join(key.architectures)}"
        typer.echo(f"{verb} {key.file} ({item.reason}): {key.precision}, {where}")
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
