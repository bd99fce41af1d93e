"""`dmcodec tokenize`: a corpus of any size to shards of tokens."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.errors import ArgumentError, DmcodecError
from dmcodec.text import one_line, size_text

from .common import (
    BackendOption,
    BundleOption,
    EngineCacheOption,
    ForceOption,
    JsonOption,
    NqOption,
    ProviderOption,
    print_json,
)
from .left_out import left_out_json, warn_left_out
from .progress import Report, show_progress

if TYPE_CHECKING:
    from dmcodec.runtime.corpus.engines.engine import CodecOptions, Engine
    from dmcodec.runtime.corpus.plan import Plan
    from dmcodec.runtime.corpus.run import State, TokenizeOptions
    from dmcodec.runtime.corpus.sources.find import Corpus
    from dmcodec.runtime.corpus.summary import Summary

RUN = "Run"
TABLES = "Parquet files and Hugging Face datasets"
SHOWN_FAILURES = 5


def tokenize(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN",
            help="Audio files, folders, globs or URLs; lists (.txt) and manifests (.tsv, .jsonl) of audio; Parquet "
            "files and tars with audio; hf:NAME or hf:NAME:CONFIG for a Hugging Face dataset.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the output.", metavar="OUT")],
    format: Annotated[
        str,
        typer.Option(
            help="Format of the shards: parquet, megatron, webdataset or dmc (default: parquet).", metavar="NAME"
        ),
    ] = "parquet",
    codes: Annotated[
        str,
        typer.Option(
            help="How Parquet holds codes: lists, one for each level, or packed, as in a token file (default: lists).",
            metavar="NAME",
        ),
    ] = "lists",
    layout: Annotated[
        str | None,
        typer.Option(
            help="Ids of Megatron's format: frame, level or semantic, or a file of TokenLayout.save (default: frame).",
            metavar="NAME|FILE",
        ),
    ] = None,
    n_q: NqOption = None,
    shard_s: Annotated[
        float | None,
        typer.Option(
            help="Seconds of audio in a shard, about (default: a 1024th of the corpus, from 2 minutes to 4 hours).",
            metavar="SECONDS",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, with an estimate of the time, and write nothing.")
    ] = False,
    keep_plan: Annotated[
        bool,
        typer.Option("--keep-plan", help="Go on with the plan in OUT, though the corpus may have changed since."),
    ] = False,
    hf_split: Annotated[
        str,
        typer.Option(help="Split of the dataset to read (default: train).", metavar="NAME", rich_help_panel=TABLES),
    ] = "train",
    audio_column: Annotated[
        str | None,
        typer.Option(
            help="Column of the audio (default: the only one, or the one called audio).",
            metavar="NAME",
            rich_help_panel=TABLES,
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="What runs the shards: local or ray (default: local).", metavar="NAME", rich_help_panel=RUN),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            help="With --engine ray, the cluster: auto for the one that this machine is in, or HOST:PORT (default: a "
            "Ray on this machine, for this run).",
            metavar="ADDRESS",
            rich_help_panel=RUN,
        ),
    ] = None,
    num_gpus: Annotated[
        float | None,
        typer.Option(
            help="With --engine ray, GPUs of a worker, or a part of one (default: 1 where the codec runs on a GPU).",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes, each with one CPU thread (default: one for each CPU that this process may use; one on a "
            "GPU; with --engine ray, as many as the cluster has room for).",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    max_failures: Annotated[
        int | None,
        typer.Option(help="Stop when more clips have failed (default: never).", metavar="N", rich_help_panel=RUN),
    ] = None,
    spool: Annotated[
        str | None,
        typer.Option(
            help="Where exact encoding of long recordings keeps features: a folder, or memory (default: in memory up "
            "to 256 MiB a worker, else in the system's folder for temporary files).",
            metavar="DIR|memory",
            rich_help_panel=RUN,
        ),
    ] = None,
    bundle: BundleOption = None,
    backend: BackendOption = "onnxruntime",
    provider: ProviderOption = None,
    engine_cache: EngineCacheOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tokenize a corpus of any size into shards; after an interruption, the same command goes on.

    The output does not depend on the number of workers, nor on interruptions. A clip that cannot be used does not stop
    the others: failures.parquet names it, and the exit code is then 1.
    """
    from dmcodec.runtime.corpus.engines.engine import CodecOptions
    from dmcodec.runtime.corpus.run import TokenizeOptions
    from dmcodec.runtime.corpus.sources.containers import TableOptions
    from dmcodec.runtime.corpus.sources.find import Corpus, find_corpus

    codec = CodecOptions(bundle.absolute() if bundle else None, backend, provider, engine_cache, spool)
    options = TokenizeOptions(format, codes, n_q, shard_s, force, keep_plan, max_failures, layout)
    count = _workers(codec) if workers is None else workers
    chosen = _engine(engine, count, workers, address, num_gpus)
    corpus = Corpus(inputs) if keep_plan else find_corpus(inputs, TableOptions(hf_split, audio_column))
    warn_left_out(corpus.left_out)
    if dry_run:
        _dry_run(corpus, out, codec, options, count, as_json)
        return
    _Run(corpus, out, codec, options, chosen, as_json).go()


def _engine(name: str, processes: int, workers: int | None, address: str | None, num_gpus: float | None) -> Engine:
    from dmcodec.runtime.corpus.engines.local import LocalEngine
    from dmcodec.runtime.corpus.engines.ray import RayEngine

    engines: Mapping[str, Callable[[], Engine]] = {
        "local": lambda: LocalEngine(processes),
        "ray": lambda: RayEngine(address, workers, num_gpus),
    }
    if name not in engines:
        raise ArgumentError(f"--engine {name!r} is not known; use one of {', '.join(engines)}")
    if name != "ray" and (address is not None or num_gpus is not None):
        raise ArgumentError("--address and --num-gpus belong to --engine ray; add it")
    return engines[name]()


def _workers(codec: CodecOptions) -> int:
    from dmcodec.cpus import usable_cpus

    return usable_cpus() if codec.on_cpu else 1


def _dry_run(
    corpus: Corpus, out: Path, codec: CodecOptions, options: TokenizeOptions, workers: int, as_json: bool
) -> None:
    from dmcodec.runtime.corpus.planning import Draft
    from dmcodec.runtime.corpus.run import measured_xrt, planned

    with show_progress() as report, planned(corpus, out, codec, options, _listing(report)) as draft:
        plan = draft.plan if isinstance(draft, Draft) else draft
    facts = _plan_facts(plan, workers, measured_xrt(codec))
    if as_json:
        print_json({"dry_run": True, **facts, "plan": plan.to_dict()})
        return
    time_text = _duration(facts["estimated_s"])
    typer.echo(f"clips    {facts['clips']}")
    typer.echo(f"audio    {facts['hours']:.2f} h, {size_text(facts['input_bytes'])} (lengths as headers tell them)")
    typer.echo(f"shards   {facts['shards']}, of about {_duration(plan.audio_s / len(plan.shards))} each")
    typer.echo(f"output   {size_text(facts['packed_bytes'])} of packed codes")
    typer.echo(
        f"time     about {time_text}, with {workers} workers at xRT {facts['worker_xrt']:.0f} each on this machine"
    )


def _plan_facts(plan: Plan, workers: int, xrt: float) -> dict[str, Any]:
    from dmcodec.config import bits_per_code

    settings = plan.settings
    frames = plan.audio_s * settings.sample_rate / settings.hop_length
    return {
        "clips": plan.num_items,
        "hours": plan.audio_s / 3600,
        "input_bytes": plan.size_bytes,
        "shards": len(plan.shards),
        "packed_bytes": round(frames * settings.n_q * bits_per_code(settings.codebook_size) / 8),
        "workers": workers,
        "worker_xrt": xrt,
        "estimated_s": plan.audio_s / (xrt * min(workers, len(plan.shards))),
    }


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _listing(report: Report) -> Callable[[int], None]:
    return lambda count: report("plan, clips", count, count + 1)


@dataclass
class _Run:
    """One call: runs the corpus, and prints what became of it."""

    corpus: Corpus
    out: Path
    codec: CodecOptions
    options: TokenizeOptions
    engine: Engine
    as_json: bool
    run_s: float = 0.0  # seconds of audio that this call did
    started: float | None = None

    def go(self) -> None:
        from dmcodec.runtime.corpus.run import tokenize as run

        try:
            with show_progress() as report:
                summary = run(
                    self.corpus, self.out, self.codec, self.engine, self.options, self._watch(report), _listing(report)
                )
        except (KeyboardInterrupt, SystemExit):
            self._interrupted()
            raise
        self._finish(summary)

    def _watch(self, report: Report) -> Callable[[State], None]:
        def watch(state: State) -> None:
            now = time.perf_counter()
            self.started = now if self.started is None else self.started
            self.run_s = state.run_s
            xrt = f", xRT {state.run_s / (now - self.started):.0f}" if state.run_s and now > self.started else ""
            failed = f", {state.failures} failed" if state.failures else ""
            detail = f"{state.done_s / 3600:.2f} of {state.total_s / 3600:.2f} h{xrt}{failed}"
            report("tokenize, seconds of audio", state.done_s, state.total_s, detail)

        return watch

    def _finish(self, summary: Summary) -> None:
        elapsed_s = time.perf_counter() - self.started if self.started is not None else 0.0
        failures = summary.failures
        if self.as_json:
            print_json({**self._document(summary), "elapsed_s": elapsed_s, "xrt": self._xrt(elapsed_s)})
        else:
            for failure in failures[:SHOWN_FAILURES]:
                typer.echo(f"error: {one_line(failure.id)}: {one_line(failure.reason)}", err=True)
            xrt = self._xrt(elapsed_s)
            speed = f", {elapsed_s:.1f} s (xRT {xrt:.0f})" if xrt else ", nothing was left to do"
            typer.echo(
                f"{self.out}: {summary.clips} clips, {summary.audio_s / 3600:.2f} h in {summary.shards_done} shards, "
                f"{size_text(summary.size_bytes)}{speed}"
            )
        if failures:
            total = summary.clips + len(failures)
            typer.echo(
                f"error: {len(failures)} of {total} clips failed; {self.out / 'failures.parquet'} says why", err=True
            )
            raise typer.Exit(1)

    def _xrt(self, elapsed_s: float) -> float | None:
        return self.run_s / elapsed_s if self.run_s and elapsed_s else None

    def _document(self, summary: Summary) -> dict[str, Any]:
        named = [failure.to_dict() for failure in summary.failures]
        return {**summary.to_dict(), "failed": named, "left_out": left_out_json(self.corpus.left_out)}

    def _interrupted(self) -> None:
        """Say how far the run came; with `--json`, print the document of what is done, too."""
        from dmcodec.runtime.corpus.summary import read_summary

        with contextlib.suppress(DmcodecError, OSError):
            summary = read_summary(self.out)
            if self.as_json:
                print_json({**self._document(summary), "interrupted": True})
            typer.echo(
                f"interrupted: {summary.shards_done} of {len(summary.plan.shards)} shards are done; "
                "the same command goes on with the others",
                err=True,
            )
