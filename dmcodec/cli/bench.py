"""`dmcodec bench`: speed and memory of a bundle, beside torch and other backends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmcodec.bundle import default_bundle_path
from dmcodec.errors import ArgumentError

from .bundles import named_codec
from .common import (
    CODEC,
    COMPARISON,
    DEFAULT_CHUNK_FRAMES,
    MEASUREMENT,
    BackendOption,
    BundleOption,
    DeviceIdOption,
    ForceOption,
    JsonOption,
    NqOption,
    ProviderOption,
    ReportOption,
    ThreadsOption,
    TorchCheckpointOption,
    TorchConfigOption,
    batch_option,
    chunk_frames_option,
    command_line,
    console,
    duration_option,
    listed,
    note,
    numbers,
    print_json,
    rounds_option,
    seconds,
)
from .progress import show_progress
from .weights import full_size_bundle

SIZES = ("small", "full")


def bench(
    bundle: BundleOption = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Instead of --bundle: small, the bundle that comes with dmcodec, or full, the full-size network with "
            "untrained weights, which is exported once into your cache (needs torch) (default: small).",
            metavar="NAME",
            rich_help_panel=CODEC,
        ),
    ] = None,
    backend: BackendOption = "onnxruntime",
    provider: ProviderOption = None,
    device_id: DeviceIdOption = None,
    threads: ThreadsOption = None,
    duration: Annotated[list[str] | None, duration_option("1,5,10,30")] = None,
    batch: Annotated[list[str] | None, batch_option("1,4,16")] = None,
    rounds: Annotated[int, rounds_option(10)] = 10,
    stream: Annotated[
        bool, typer.Option("--stream", help="Measure streaming decode, too.", rich_help_panel=MEASUREMENT)
    ] = False,
    chunk_frames: Annotated[int | None, chunk_frames_option(MEASUREMENT)] = None,
    streams: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure so many live streams at once, too, in a pool and separate, and search how many the machine "
            "keeps up with; this takes minutes (default: none).",
            metavar="N,...",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Instead, measure `dmcodec tokenize` on this folder of short clips, beside encode_batch on the same "
            "clips in memory; --threads is the number of workers, too.",
            metavar="DIR",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    start_up: Annotated[
        bool,
        typer.Option(
            "--start-up",
            help="Instead, measure import, loading and the first calls, each round in a new process.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Take about this long, such as 60s or 2m: fewer rounds, and what does not fit is left out; "
            "torch.compile unless it is named (default: no limit).",
            metavar="TIME",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Run these, too: torch (torch-eager, torch-bf16, torch-int8 and torch-compile) or one of these, "
            "onnxruntime-cpu, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt, or transformers:ID or transformers:DIR "
            "of a codec (default: none).",
            metavar="NAME,...",
            rich_help_panel=COMPARISON,
        ),
    ] = None,
    codec: Annotated[
        list[str] | None,
        typer.Option(
            help="Run another codec, too: bundle, also by a name of `dmcodec models`, checkpoint file, or "
            "transformers:ID or transformers:DIR of a codec; repeat it for more.",
            metavar="[NAME=]PATH",
            rich_help_panel=COMPARISON,
        ),
    ] = None,
    n_q: NqOption = None,
    checkpoint: TorchCheckpointOption = None,
    config: TorchConfigOption = None,
    report: ReportOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure speed and memory of a bundle, alone or against torch.

    The results are latency, RTF (compute time / audio time), xRT (its inverse), throughput and memory. With --against,
    torch, other backends or other codecs run the same clips, interleaved with the bundle (A B A B).

    With --corpus, a corpus of files is measured instead, with reading and writing; with --start-up, import and loading.

    Options marked with ",..." take several values: --batch 1,4 or --batch 1 --batch 4.
    """
    from dmcodec.benchmarks import run_bench
    from dmcodec.benchmarks.bench import options
    from dmcodec.benchmarks.bench.page import render_report, require_matplotlib
    from dmcodec.benchmarks.bench.result_tables import print_result
    from dmcodec.benchmarks.codecs.named import Named
    from dmcodec.files import refuse_existing, refuse_inputs, write_bytes
    from dmcodec.text import utf8

    if size not in (None, *SIZES):
        raise ArgumentError(f"--size {size!r} is not known; use one of {', '.join(SIZES)}")
    if size is not None and bundle is not None:
        raise ArgumentError("--size and --bundle exclude each other; name either a size or a bundle")
    if chunk_frames is not None and not stream:
        raise ArgumentError("--chunk-frames belongs to --stream; add it")
    if force and not report:
        raise ArgumentError("--force belongs to --report; add it")
    if corpus is not None or start_up:
        others = (duration, batch, stream, streams, budget, against, codec, n_q, checkpoint, config, report, provider)
        if any(others) or backend != "onnxruntime" or (corpus is not None and start_up):
            raise ArgumentError(
                f"{'--start-up' if corpus is None else '--corpus'} measures one thing on the CPU; "
                "it takes --bundle, --size, --threads, --rounds and --json only"
            )
        if corpus is None:
            _bench_start_up(_bundle(bundle, size), threads, rounds, as_json)
        else:
            _bench_corpus(corpus, _bundle(bundle, size), threads, rounds, as_json)
        return
    bench_options = options.BenchOptions(
        backend=backend,
        provider=provider,
        device_id=device_id,
        threads=threads,
        durations_s=numbers("--duration", duration, float) or options.DEFAULT_DURATIONS_S,
        batches=numbers("--batch", batch, int) or options.DEFAULT_BATCHES,
        rounds=rounds,
        against=_against(against),
        codecs=tuple(named_codec(Named.parse(argument)) for argument in codec or ()),
        n_q=n_q,
        stream=stream,
        streams=numbers("--streams", streams, int) or (),
        chunk_frames=DEFAULT_CHUNK_FRAMES if chunk_frames is None else chunk_frames,
        checkpoint=checkpoint,
        config=config,
        budget_s=None if budget is None else seconds("--budget", budget),
        command=command_line(),
    )
    if report:
        refuse_existing(report, force)
        refuse_inputs(report, checkpoint, config)
        require_matplotlib()
    with show_progress() as progress:
        result = run_bench(_bundle(bundle, size), bench_options, progress)
    if as_json:
        print_json(result.to_dict())
    else:
        print_result(result, console())
    if report:
        write_bytes(report, utf8(render_report(result)).encode())
        note(f"report written to {report}")


def _against(values: list[str] | None) -> tuple[str, ...]:
    """Return the values of `--against`; one that begins with `transformers:` is not split, a folder may hold commas."""
    models = [value for value in values or () if value.startswith("transformers:")]
    others = [value for value in values or () if value not in models]
    return (*models, *listed("--against", others))


def _bundle(bundle: Path | None, size: str | None) -> Path:
    if bundle is not None:
        return bundle
    return full_size_bundle() if size == "full" else default_bundle_path()


def _bench_corpus(corpus: str, bundle: Path, threads: int | None, rounds: int, as_json: bool) -> None:
    from dmcodec.benchmarks.bench.corpus import corpus_table, run_corpus_bench
    from dmcodec.benchmarks.tables import print_tables
    from dmcodec.cpus import usable_cpus
    from dmcodec.extras import require

    require("dmcodec bench --corpus", "corpus", "pyarrow")
    with show_progress() as progress:
        result = run_corpus_bench(corpus, bundle, threads or usable_cpus(), rounds, command_line(), progress)
    if as_json:
        print_json(result.to_dict())
    else:
        print_tables(f"{bundle}: model {result.model_id}", [corpus_table(result)], console())


def _bench_start_up(bundle: Path, threads: int | None, rounds: int, as_json: bool) -> None:
    from dmcodec.benchmarks.bench.start_up import run_start_up, start_up_tables
    from dmcodec.benchmarks.tables import print_tables

    with show_progress() as progress:
        result = run_start_up(bundle, threads, rounds, command_line(), progress)
    if as_json:
        print_json(result.to_dict())
    else:
        lines = (result.load.warning(), f"{bundle}: model {result.model_id}", result.load.line())
        print_tables("\n".join(filter(None, lines)), start_up_tables(result), console())
