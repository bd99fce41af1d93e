"""`dmcodec verify`: does a backend say what the reference says?"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ParityError

from .common import (
    BackendOption,
    BundleArgument,
    EngineCacheOption,
    JsonOption,
    RunProviderOption,
    ThreadsOption,
    console,
    print_json,
    stage_progress,
)


def verify(
    bundle: BundleArgument = None,
    backend: BackendOption = "onnxruntime",
    provider: RunProviderOption = None,
    threads: ThreadsOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="The reference: onnxruntime-cpu or torch (default: torch with --checkpoint, else onnxruntime-cpu)."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights for torch (default: of the bundle's seed, or those it holds).", metavar="FILE"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration of the checkpoint (default: the bundle's).", metavar="FILE")
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="Also run this audio file; repeat it for more.", metavar="FILE")
    ] = None,
    exactness: Annotated[
        bool,
        typer.Option("--exactness", help="Longer clips and more of them: a long clip of 2 minutes, 24 in a batch."),
    ] = False,
    engine_cache: EngineCacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a backend against the reference: each graph, and streams, batches, windows and levels as they are used.

    Exit code 1 where a figure is below the thresholds of the bundle's precision.
    """
    from dmcodec.benchmarks.tables import print_tables
    from dmcodec.benchmarks.verify import VerifyOptions, run_verify
    from dmcodec.benchmarks.verify.options import ONNXRUNTIME_CPU, TORCH
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
        command=shlex.join(["dmcodec", *sys.argv[1:]]),
    )
    bundle = bundle or default_bundle_path()
    with stage_progress() as progress:
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
