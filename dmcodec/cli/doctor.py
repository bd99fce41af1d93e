"""`dmcodec doctor`: what is installed, and on a GPU machine what every backend can do."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dmcodec.errors import ArgumentError, BackendError

from .common import ForceOption, JsonOption, console, note, print_json, stage_progress

DEFAULT_OUT = Path("dmcodec-gpu.json")


def doctor(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(
            help="With --gpu: bundles; by default full-size untrained weights in fp32 and fp16.", metavar="[BUNDLE...]"
        ),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run verify and bench on every backend there is.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="With --gpu: the report (default: dmcodec-gpu.json).")
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="With --gpu: only this one (onnxruntime-cpu, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt), even "
            "without a GPU; repeat it for more."
        ),
    ] = None,
    duration: Annotated[
        list[float] | None, typer.Option(help="With --gpu: as for bench (default: 1 10).", metavar="SECONDS")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="With --gpu: as for bench (default: 1 4 16).", metavar="CLIPS")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="With --gpu: as for bench (default: 20).")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="With --gpu: weights for torch (default: as for bench).", metavar="FILE")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="With --gpu: configuration of the checkpoint.", metavar="FILE")
    ] = None,
    timeout_s: Annotated[float | None, typer.Option(help="With --gpu: most time for a step (default: 1800).")] = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
) -> None:
    """Show what is installed and the way out of what is missing; with --gpu, fill one report for a GPU machine."""
    given = {
        "durations_s": tuple(duration or ()),
        "batches": tuple(batch or ()),
        "rounds": rounds,
        "checkpoint": checkpoint,
        "config": config,
        "timeout_s": timeout_s,
        "backends": tuple(backend or ()),
    }
    given = {name: value for name, value in given.items() if value not in (None, ())}
    if gpu:
        _gpu_report(bundles or [], out or DEFAULT_OUT, given, as_json, force)
        return
    if given or bundles or out or force:
        raise ArgumentError("only --json goes without --gpu; add --gpu")
    from dmcodec.benchmarks.doctor import examine
    from dmcodec.benchmarks.doctor.findings import to_dicts
    from dmcodec.benchmarks.doctor.result_tables import findings_table
    from dmcodec.benchmarks.tables import print_tables

    findings = examine().findings
    if as_json:
        print_json({"findings": to_dicts(findings)})
    else:
        print_tables("", [findings_table(findings)], console())


def _gpu_report(bundles: list[Path], out: Path, given: dict[str, Any], as_json: bool, force: bool) -> None:
    from dmcodec.benchmarks.doctor import GpuReportOptions, examine, run_gpu_report
    from dmcodec.benchmarks.doctor.result_tables import findings_table, report_tables
    from dmcodec.benchmarks.doctor.run import failures
    from dmcodec.benchmarks.tables import print_tables
    from dmcodec.files import refuse_existing

    GpuReportOptions(bundles=(), **given)  # before anything is exported
    refuse_existing(out, force)
    examination = examine()
    if not bundles and (examination.has_gpu or "backends" in given):
        from .weights import full_size_bundle

        bundles = [full_size_bundle(precision) for precision in ("fp32", "fp16")]
    command = shlex.join(["dmcodec", *sys.argv[1:]])
    options = GpuReportOptions(bundles=tuple(bundles), command=command, **given)
    with stage_progress() as progress:
        report = run_gpu_report(examination, options, out, progress)
    if as_json:
        print_json(report)
    else:
        print_tables("", [findings_table(examination.findings), *report_tables(report)], console())
    note(f"report written to {out}")
    if found := failures(report):
        raise BackendError("; ".join(found))
