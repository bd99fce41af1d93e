"""`dmcodec evaluate`: how well codecs keep speech, and a page to hear it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from dmcodec.errors import ArgumentError, MissingDependencyError

from .common import ForceOption, JsonOption, ThreadsOption, console, note, print_json, stage_progress


def evaluate(
    reference: Annotated[Path, typer.Option(help="Folder of the original audio.", metavar="DIR")],
    codec: Annotated[
        list[str] | None,
        typer.Option(help="Bundle folder or checkpoint file to run; repeat it.", metavar="[NAME=]PATH"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration of the checkpoints (default: that of the released models).", metavar="FILE"),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Folder of what another codec made of the same files; repeat it.", metavar="[NAME=]DIR"),
    ] = None,
    n_q: Annotated[
        list[int] | None, typer.Option("--n-q", help="Quantizer levels; repeat it for a sweep (default: all).")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: stoi, pesq, visqol, visqol-polynomial, si-sdr, mel, speaker, wer, wil (default: the "
            "first six, and those whose model is named)."
        ),
    ] = None,
    recogniser: Annotated[
        str | None, typer.Option(help="For WER and WIL: transformers id or folder, CTC or Whisper.", metavar="MODEL")
    ] = None,
    transcripts: Annotated[
        Path | None,
        typer.Option(help="Lines of path<TAB>text (default: the recogniser's text of the original).", metavar="TSV"),
    ] = None,
    language: Annotated[str, typer.Option(help="Told to multilingual Whisper models; auto: they guess.")] = "en",
    normaliser: Annotated[
        str, typer.Option(help="Of texts: english (Whisper's), or basic for other languages.")
    ] = "english",
    speaker_model: Annotated[
        str | None,
        typer.Option(
            help="Transformers x-vector id or folder, or resemblyzer (with --metrics speaker: "
            "microsoft/wavlm-base-plus-sv).",
            metavar="MODEL",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Take only the first N files in order of name.", metavar="N")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on where a folder lacks files; they count as failed.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes for signal metrics (default: all CPUs of the process).")
    ] = None,
    threads: ThreadsOption = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    report: Annotated[
        Path | None, typer.Option(help="Also write a page to listen: one HTML file.", metavar="FILE.html")
    ] = None,
    report_clips: Annotated[
        int | None, typer.Option(help="With --report: clips on the page, evenly spread over the files (default: 8).")
    ] = None,
    as_json: JsonOption = False,
    force: ForceOption = False,
) -> None:
    """Measure what codecs make of a folder of speech: quality, word errors, voice, codebook use; with intervals."""
    if report is None and (force or report_clips is not None):
        raise ArgumentError(f"--{'force' if force else 'report-clips'} belongs to --report; add it")
    try:
        from dmcodec.benchmarks.evaluate import EvaluateOptions, Named, run_evaluation
        from dmcodec.benchmarks.evaluate.page import render_page, require_plotting
        from dmcodec.benchmarks.evaluate.result_tables import print_evaluation
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'evaluate needs {error.name}, which is not installed; run `pip install "dmcodec[cpu,evaluate]"`'
        ) from None
    from dmcodec.files import refuse_existing, write_bytes

    options = EvaluateOptions(
        reference=reference,
        codecs=tuple(Named.parse(argument) for argument in codec or ()),
        config=config,
        against=tuple(Named.parse(argument) for argument in against or ()),
        n_q=tuple(n_q or ()),
        metrics=None if metrics is None else tuple(filter(None, (key.strip() for key in metrics.split(",")))),
        recogniser=recogniser,
        transcripts=transcripts,
        language=None if language == "auto" else language,
        normaliser=normaliser,
        speaker_model=speaker_model,
        limit=limit,
        allow_missing=allow_missing,
        jobs=_usable_cpus() if jobs is None else jobs,
        threads=threads,
        seed=seed,
        report_clips=(8 if report_clips is None else report_clips) if report else 0,
        command=shlex.join(["dmcodec", *sys.argv[1:]]),
    )
    if report:
        refuse_existing(report, force)
        require_plotting()
    with stage_progress() as progress:
        evaluation = run_evaluation(options, progress)
    if as_json:
        print_json(evaluation.result.to_dict())
    else:
        print_evaluation(evaluation.result, console())
    if report:
        page = render_page(evaluation).encode()
        write_bytes(report, page)
        note(f"page written to {report} ({len(page) / 1e6:.1f} MB)")


def _usable_cpus() -> int:
    from dmcodec.runtime.onnxruntime_backend import usable_cpus

    return usable_cpus()
