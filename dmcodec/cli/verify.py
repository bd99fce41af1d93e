"""`dmcodec verify`: whether a backend agrees with the reference, and whether tokens depend on how they are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError, ParityError
from dmcodec.text import one_line, utf8

from .common import (
    COMPARISON,
    BackendOption,
    BundleOption,
    DeviceIdOption,
    EngineCacheOption,
    ForceOption,
    JsonOption,
    ProviderOption,
    ReportOption,
    ThreadsOption,
    TorchCheckpointOption,
    TorchConfigOption,
    command_line,
    console,
    note,
    print_json,
)
from .progress import show_progress

if TYPE_CHECKING:
    from dmcodec.benchmarks.tables import Table
    from dmcodec.benchmarks.verify import VerifyOptions, VerifyResult
    from dmcodec.benchmarks.verify.conformance import ConformanceResult
    from dmcodec.benchmarks.verify.proof import Proof


def verify(
    ctx: typer.Context,
    suite_bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="With --conformance: bundle folder, as with --bundle."),
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="Also run this audio file; repeat it for more.", metavar="FILE")
    ] = None,
    exactness: Annotated[
        bool, typer.Option("--exactness", help="Run longer clips and more of them: 2 minutes, and 24 in a batch.")
    ] = False,
    conformance: Annotated[
        bool,
        typer.Option(
            "--conformance",
            help="Run the conformance suite instead: whether tokens depend on batch, padding, chunk, worker or thread.",
        ),
    ] = False,
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
    engine_cache: EngineCacheOption = None,
    device_id: DeviceIdOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Reference: onnxruntime-cpu or torch (default: torch with --checkpoint, else onnxruntime-cpu).",
            metavar="NAME",
            rich_help_panel=COMPARISON,
        ),
    ] = None,
    checkpoint: TorchCheckpointOption = None,
    config: TorchConfigOption = None,
    details: Annotated[bool, typer.Option("--details", help="Print every case, too, not only five lines.")] = False,
    report: ReportOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a backend with ONNX Runtime on the CPU, or with torch.

    Each graph is compared, and then streams, batches, windows of long clips and fewer quantizer levels. The exit code
    is 1 where a value is outside the thresholds of the bundle's precision.

    Five lines say whether it passed, the worst figure, and what that proves and what not. By default, the reference is
    the bundle's own graphs: whether these match the checkpoint was proven at export, and --checkpoint proves it again.

    With --conformance, audio that comes with dmcodec is run in many ways. The built-in codec is compared with the codes
    and audio that are expected of it, any other bundle with each clip alone.
    """
    from dmcodec.benchmarks.codecs.registry import ONNXRUNTIME_CPU
    from dmcodec.benchmarks.verify import VerifyOptions
    from dmcodec.benchmarks.verify.options import TORCH
    from dmcodec.files import refuse_existing, refuse_inputs

    bundle = _chosen_bundle(ctx, suite_bundle, bundle, conformance)
    if conformance and (audio or exactness or against or checkpoint or config):
        raise ArgumentError(
            "--conformance has its own audio and reference; "
            "leave --audio, --exactness, --against, --checkpoint and --config out"
        )
    if details and as_json:
        raise ArgumentError("--details is for the terminal; --json holds every case already, so leave --details out")
    if force and report is None:
        raise ArgumentError("--force belongs to --report; add it")
    options = VerifyOptions(
        backend=backend,
        provider=provider,
        threads=threads,
        against=against or (TORCH if checkpoint else ONNXRUNTIME_CPU),
        checkpoint=checkpoint,
        config=config,
        audio=tuple(audio or ()),
        exactness=exactness,
        engine_cache=engine_cache,
        device_id=device_id,
        command=command_line(),
    )
    if report:
        refuse_existing(report, force)
        refuse_inputs(report, checkpoint, config, *options.audio)
    outcome = _conform(bundle, options) if conformance else _compare(bundle, options)
    _print(outcome, details, as_json)
    if report:
        write_proof(report, outcome.proof())
    if not outcome.result.passed:
        problems = outcome.result.problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ParityError(f"{outcome.where}: {problems[0]}{more}")


def _chosen_bundle(ctx: typer.Context, named: Path | None, bundle: Path | None, conformance: bool) -> Path:
    """Return the bundle to run.

    Raises:
        ArgumentError: it is named twice, or in a way that is for --conformance only.
    """
    if named is not None and not conformance:
        problem = f"got unexpected extra argument ({named}); name a bundle with --bundle BUNDLE"
        raise ArgumentError(f"{problem} (see {ctx.command_path} --help)")
    if named is not None and bundle is not None:
        raise ArgumentError(f"{named} and --bundle {bundle} both name a bundle; leave one out")
    return named or bundle or default_bundle_path()


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What came out, and how it is shown.

    Attributes:
        result: that is printed as JSON.
        where: what ran, for the error.
        lines: five lines.
        tables: every case.
        proof: makes the content of the page.
    """

    result: VerifyResult | ConformanceResult
    where: str
    lines: list[str]
    tables: list[Table]
    proof: Callable[[], Proof]


def _compare(bundle: Path, options: VerifyOptions) -> _Outcome:
    from dmcodec.benchmarks.verify import run_verify
    from dmcodec.benchmarks.verify.proof import proof_of_verify
    from dmcodec.benchmarks.verify.result_tables import verify_tables
    from dmcodec.benchmarks.verify.words import summary_lines

    with show_progress() as progress:
        result = run_verify(bundle, options, progress)
    where = f"{bundle} on {result.backend}, {result.provider}"
    return _Outcome(result, where, summary_lines(result), verify_tables(result), lambda: proof_of_verify(result))


def _conform(bundle: Path, options: VerifyOptions) -> _Outcome:
    from dmcodec.benchmarks.verify.conformance import run_conformance
    from dmcodec.benchmarks.verify.proof import proof_of_conformance
    from dmcodec.benchmarks.verify.result_tables import conformance_table
    from dmcodec.benchmarks.verify.words import conformance_lines

    with show_progress() as progress:
        result = run_conformance(bundle, options, progress)
    where, tables = f"{bundle}: {result.verdict}", [conformance_table(result)]
    return _Outcome(result, where, conformance_lines(result), tables, lambda: proof_of_conformance(result))


def _print(outcome: _Outcome, details: bool, as_json: bool) -> None:
    from dmcodec.benchmarks.tables import print_tables

    if as_json:
        print_json(outcome.result.to_dict())
    elif details:
        print_tables("\n".join(outcome.lines), outcome.tables, console())
    else:
        for line in outcome.lines:
            typer.echo(one_line(line))


def write_proof(path: Path, proof: Proof) -> None:
    """Write the proof page, and say so on stderr."""
    from dmcodec.benchmarks.verify.page import render_proof
    from dmcodec.files import write_bytes

    write_bytes(path, utf8(render_proof(proof)).encode())
    note(f"report written to {path}")
