"""`dmcodec bench`: how fast a bundle is, how much memory it takes, and how it compares with torch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError

from .common import (
    BackendOption,
    BundleArgument,
    ForceOption,
    JsonOption,
    RunProviderOption,
    ThreadsOption,
    console,
    note,
    print_json,
    stage_progress,
)
from .weights import full_size_bundle

SIZES = ("small", "full")


def bench(
    bundle: BundleArgument = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Without a bundle: small, the trained one that comes with dmcodec (default), or full, the full-size "
            "network with untrained weights, which is exported once into your cache (needs torch)."
        ),
    ] = None,
    backend: BackendOption = "onnxruntime",
    provider: RunProviderOption = None,
    threads: ThreadsOption = None,
    duration: Annotated[
        list[float] | None,
        typer.Option(help="Clip length in seconds; repeat it for a sweep (default: 1 5 10 30).", metavar="SECONDS"),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            help="Batch size, at 10 s or else the longest --duration; repeat it for a sweep (default: 1 4 16).",
            metavar="CLIPS",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Steady-state runs of each measurement.")] = 10,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Peer to run in turn with; repeat it for more: torch (eager and compiled), torch-eager, "
            "torch-compile, onnxruntime-cpu, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt.",
            metavar="PEER",
        ),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Measure streaming decode, too.")] = False,
    chunk_frames: Annotated[int | None, typer.Option(help="With --stream: frames in each push (default: 5).")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights for torch (default: of the bundle's seed, or those it holds).", metavar="FILE"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration of the checkpoint (default: the bundle's).", metavar="FILE")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Also write a report with plots: one HTML page.", metavar="FILE.html")
    ] = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
) -> None:
    """Measure a bundle: latency, RTF and xRT, throughput, memory, and speed and fidelity against torch."""
    from dmcodec.benchmarks import run_bench
    from dmcodec.benchmarks.bench import options
    from dmcodec.benchmarks.bench.page import render_report, require_matplotlib
    from dmcodec.benchmarks.bench.result_tables import print_result
    from dmcodec.files import refuse_existing, write_bytes

    if size not in (None, *SIZES):
        raise ArgumentError(f"--size {size!r} is not known; use one of {', '.join(SIZES)}")
    if size is not None and bundle is not None:
        raise ArgumentError("--size is for the bundles that come with dmcodec; name either a size or a bundle")
    if chunk_frames is not None and not stream:
        raise ArgumentError("--chunk-frames belongs to --stream; add it")
    if force and not report:
        raise ArgumentError("--force belongs to --report; add it")
    wanted = options.BenchOptions(
        backend=backend,
        provider=provider,
        threads=threads,
        durations_s=tuple(duration) if duration else options.DEFAULT_DURATIONS_S,
        batches=tuple(batch) if batch else options.DEFAULT_BATCHES,
        rounds=rounds,
        against=tuple(against or ()),
        stream=stream,
        chunk_frames=5 if chunk_frames is None else chunk_frames,
        checkpoint=checkpoint,
        config=config,
        command=shlex.join(["dmcodec", *sys.argv[1:]]),
    )
    if report:
        refuse_existing(report, force)
        require_matplotlib()
    if bundle is None:
        bundle = full_size_bundle() if size == "full" else default_bundle_path()
    with stage_progress() as progress:
        result = run_bench(bundle, wanted, progress)
    if as_json:
        print_json(result.to_dict())
    else:
        print_result(result, console())
    if report:
        write_bytes(report, render_report(result).encode())
        note(f"report written to {report}")
