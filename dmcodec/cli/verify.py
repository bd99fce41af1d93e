"""`dmcodec verify`: whether a backend agrees with the reference, and whether tokens depend on how they are made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError, ParityError

from .common import (
    COMPARISON,
    BackendOption,
    BundleOption,
    DeviceIdOption,
    EngineCacheOption,
    JsonOption,
    ProviderOption,
    ThreadsOption,
    TorchCheckpointOption,
    TorchConfigOption,
    command_line,
    console,
    print_json,
)
from .progress import show_progress

if TYPE_CHECKING:
    from dmcodec.benchmarks.verify import VerifyOptions


def verify(
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
    as_json: JsonOption = False,
) -> None:
    """Compare a backend with ONNX Runtime on the CPU, or with torch.

    Each graph is compared, and then streams, batches, windows of long clips and fewer quantizer levels. The exit code
    is 1 where a value is outside the thresholds of the bundle's precision.

    With --conformance, audio that comes with dmcodec is run in many ways. The built-in codec is compared with the codes
    and audio that are expected of it, any other bundle with each clip alone.
    """
    from dmcodec.benchmarks.codecs.registry import ONNXRUNTIME_CPU
    from dmcodec.benchmarks.tables import print_tables
    from dmcodec.benchmarks.verify import VerifyOptions, run_verify
    from dmcodec.benchmarks.verify.options import TORCH
    from dmcodec.benchmarks.verify.result_tables import summary_line, verify_tables

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
    bundle = bundle or default_bundle_path()
    if conformance:
        if audio or exactness or against or checkpoint or config:
            raise ArgumentError(
                "--conformance has its own audio and reference; "
                "leave --audio, --exactness, --against, --checkpoint and --config out"
            )
        _conform(bundle, options, as_json)
        return
    with show_progress() as progress:
        result = run_verify(bundle, options, progress)
    if as_json:
        print_json(result.to_dict())
    else:
        print_tables(summary_line(result), verify_tables(result), console())
    if not result.passed:
        more = f" (and {len(result.problems) - 1} more)" if len(result.problems) > 1 else ""
        raise ParityError(f"{bundle} on {result.backend}, {result.provider}: {result.problems[0]}{more}")
    if not as_json:
        typer.echo("passed")


def _conform(bundle: Path, options: VerifyOptions, as_json: bool) -> None:
    from dmcodec.benchmarks.tables import print_tables
    from dmcodec.benchmarks.verify.conformance import run_conformance
    from dmcodec.benchmarks.verify.result_tables import conformance_line, conformance_table

    with show_progress() as progress:
        result = run_conformance(bundle, options, progress)
    if as_json:
        print_json(result.to_dict())
    else:
        print_tables(conformance_line(result), [conformance_table(result)], console())
    if not result.passed:
        more = f" (and {len(result.problems) - 1} more)" if len(result.problems) > 1 else ""
        raise ParityError(f"{bundle}: {result.verdict}: {result.problems[0]}{more}")
    if not as_json:
        typer.echo(result.verdict)
