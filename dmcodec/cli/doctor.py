"""`dmcodec doctor`: what is installed, and on a GPU machine what every backend can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.errors import ArgumentError, BackendError

from .common import (
    ForceOption,
    JsonOption,
    TorchCheckpointOption,
    TorchConfigOption,
    batch_option,
    command_line,
    console,
    duration_option,
    listed,
    note,
    numbers,
    print_json,
    rounds_option,
)
from .progress import show_progress

DEFAULT_OUT = Path("dmcodec-gpu.json")
GPU_REPORT = "GPU report (with --gpu)"


def doctor(
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Run verify and bench on every backend, and write a report.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Report to write (default: dmcodec-gpu.json).",
            metavar="FILE.json",
            rich_help_panel=GPU_REPORT,
        ),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            help="Bundle folder; repeat it for more (default: the full-size network with untrained weights, in fp32 "
            "and in fp16).",
            metavar="BUNDLE",
            rich_help_panel=GPU_REPORT,
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="Run these only, even without a GPU: onnxruntime-cpu, onnxruntime-cuda, onnxruntime-tensorrt, "
            "onnxruntime-nv-tensorrt-rtx, tensorrt or tensorrt-hybrid (default: all).",
            metavar="NAME,...",
            rich_help_panel=GPU_REPORT,
        ),
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option(
            help="Documentation page whose table of figures is replaced by what was measured on the GPU.",
            metavar="PAGE.md",
            rich_help_panel=GPU_REPORT,
        ),
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option(help="Longest time for one step (default: 1800).", metavar="SECONDS", rich_help_panel=GPU_REPORT),
    ] = None,
    duration: Annotated[list[str] | None, duration_option("1,10")] = None,
    batch: Annotated[list[str] | None, batch_option("1,4,16")] = None,
    rounds: Annotated[int | None, rounds_option(20)] = None,
    checkpoint: TorchCheckpointOption = None,
    config: TorchConfigOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is installed, and how to install what is missing.

    With --gpu, run verify and bench on every backend of a GPU machine and write one report.

    All options but --json need --gpu. Those marked with ",..." take several values: --batch 1,4 or --batch 1 --batch 4.
    """
    changed = {
        "durations_s": numbers("--duration", duration, float),
        "batches": numbers("--batch", batch, int),
        "rounds": rounds,
        "checkpoint": checkpoint,
        "config": config,
        "timeout_s": timeout_s,
        "backends": listed("--backend", backend),
        "publish": publish,
    }
    changed = {name: value for name, value in changed.items() if value not in (None, ())}
    if gpu:
        _write_gpu_report(bundle or [], out or DEFAULT_OUT, changed, as_json, force)
        return
    if changed or bundle or out or force:
        raise ArgumentError("all options but --json need --gpu; add --gpu")
    from dmcodec.benchmarks.doctor import examine
    from dmcodec.benchmarks.doctor.findings import to_dicts
    from dmcodec.benchmarks.doctor.result_tables import findings_table
    from dmcodec.benchmarks.tables import print_tables

    findings = examine().findings
    if as_json:
        print_json({"findings": to_dicts(findings)})
    else:
        print_tables("", [findings_table(findings)], console())


def _write_gpu_report(bundles: list[Path], out: Path, changed: dict[str, Any], as_json: bool, force: bool) -> None:
    """Write the report; `changed` are fields of GpuReportOptions that differ from their defaults."""
    from dmcodec.benchmarks.doctor import GpuReportOptions, examine, run_gpu_report
    from dmcodec.benchmarks.doctor.figures import check_page
    from dmcodec.benchmarks.doctor.result_tables import findings_table, report_tables
    from dmcodec.benchmarks.doctor.run import failures, ran_on_gpu
    from dmcodec.benchmarks.tables import print_tables
    from dmcodec.files import refuse_existing

    asked = GpuReportOptions(bundles=(), **changed)  # refuses wrong values before anything is exported
    if asked.publish is not None:
        check_page(asked.publish)
    refuse_existing(out, force)
    examination = examine()
    if not bundles and (examination.has_gpu or "backends" in changed):
        from .weights import full_size_bundle

        bundles = [full_size_bundle(precision) for precision in ("fp32", "fp16")]
    options = GpuReportOptions(bundles=tuple(bundles), command=command_line(), **changed)
    with show_progress() as progress:
        report = run_gpu_report(examination, options, out, progress)
    if as_json:
        print_json(report)
    else:
        print_tables("", [findings_table(examination.findings), *report_tables(report)], console())
    note(f"report written to {out}")
    if options.publish is not None:
        note(f"{options.publish}: {'figures written' if ran_on_gpu(report) else 'unchanged, nothing ran on a GPU'}")
    if found := failures(report):
        raise BackendError("; ".join(found))
