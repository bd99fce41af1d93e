"""`dmcodec train prepare`: audio to a data folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.cli.common import JsonOption, TranscriptsOption, console, missing_dependency, print_json
from dmcodec.cli.left_out import left_out_json, warn_left_out
from dmcodec.cli.progress import show_progress
from dmcodec.cpus import usable_cpus
from dmcodec.errors import ArgumentError
from dmcodec.text import one_line

if TYPE_CHECKING:
    from dmcodec.training.data.layout import Manifest

SEGMENTS = "Segments"
SPLIT = "Training and validation"
DATASETS = "Hugging Face datasets"
MAX_SHOWN = 10  # skipped recordings; the manifest lists all


def prepare(
    audio: Annotated[
        list[str],
        typer.Argument(metavar="AUDIO", help="Audio files, folders and globs, or one hf:NAME or hf:NAME:CONFIG."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Data folder to write.", metavar="DATA")],
    transcripts: TranscriptsOption = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads that read and resample (default: one for each CPU, at most 8).", metavar="N"),
    ] = None,
    segment: Annotated[
        float,
        typer.Option(help="Length of a segment (default: 3).", metavar="SECONDS", rich_help_panel=SEGMENTS),
    ] = 3.0,
    sample_rate: Annotated[
        int,
        typer.Option(help="Sample rate of the codec (default: 16000).", metavar="HZ", rich_help_panel=SEGMENTS),
    ] = 16000,
    min_duration: Annotated[
        float,
        typer.Option(help="Skip shorter recordings (default: 0.5).", metavar="SECONDS", rich_help_panel=SEGMENTS),
    ] = 0.5,
    silence: Annotated[
        float,
        typer.Option(
            help="Skip recordings whose peak is below this level (default: -60).",
            metavar="DBFS",
            rich_help_panel=SEGMENTS,
        ),
    ] = -60.0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at the first recording that cannot be used.", rich_help_panel=SEGMENTS),
    ] = False,
    validation: Annotated[
        float,
        typer.Option(
            help="Share of the files or speakers for validation, 0 to 1 (default: 0.05).",
            metavar="SHARE",
            rich_help_panel=SPLIT,
        ),
    ] = 0.05,
    split_by: Annotated[
        str,
        typer.Option(
            help="file or speaker: each is either in training or in validation (default: file).",
            metavar="NAME",
            rich_help_panel=SPLIT,
        ),
    ] = "file",
    speaker_from: Annotated[
        str | None,
        typer.Option(
            help="Where a recording's speaker is named: parent or top (its folder), or regex:PATTERN on its path "
            "(default: nowhere).",
            metavar="RULE",
            rich_help_panel=SPLIT,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split (default: 0).", metavar="N", rich_help_panel=SPLIT)] = 0,
    hf_split: Annotated[
        str,
        typer.Option(help="Split of the dataset to read (default: train).", metavar="NAME", rich_help_panel=DATASETS),
    ] = "train",
    speaker_column: Annotated[
        str | None,
        typer.Option(help="Column with the speakers (default: none).", metavar="NAME", rich_help_panel=DATASETS),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(help="Column with the transcripts (default: none).", metavar="NAME", rich_help_panel=DATASETS),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the data in DATA.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Cut audio into segments for training.

    After an interruption, the same command continues the work.
    """
    try:
        from dmcodec.audio_sources import DatasetOptions, find_sources
        from dmcodec.training.data.given_transcripts import check_used, read_tsv
        from dmcodec.training.data.prepare import PrepareSettings
        from dmcodec.training.data.prepare import prepare as prepare_data
        from dmcodec.training.data.storage import arrow
    except ModuleNotFoundError as error:
        raise missing_dependency("training", error, "train") from None
    arrow()
    if threads is not None and threads < 1:
        raise ArgumentError(f"--threads {threads} must be at least 1")
    settings = PrepareSettings(sample_rate, segment, min_duration, silence, split_by, validation, seed)
    texts = read_tsv(transcripts) if transcripts else None
    sources = find_sources(audio, speaker_from, DatasetOptions(hf_split, speaker_column, text_column))
    if texts and transcripts:
        check_used(texts, [sources.get(index).name for index in range(sources.count)], transcripts)
    warn_left_out(sources.left_out)
    count = threads or min(usable_cpus(), 8)
    with show_progress() as report:
        manifest = prepare_data(sources, out, settings, texts, count, strict, force, report)
    if as_json:
        print_json({"data": str(out), **_summary(manifest), "left_out": left_out_json(sources.left_out)})
        return
    _print_summary(out, manifest)


def _summary(manifest: Manifest) -> dict[str, Any]:
    skipped = [{"source": each.source, "reason": each.reason} for each in manifest.skipped]
    return {"fingerprint": manifest.fingerprint, **manifest.totals, "skipped": skipped}


def _print_summary(out: Path, manifest: Manifest) -> None:
    totals = manifest.totals
    train, validation = totals["train_segments"], totals["validation_segments"]
    if manifest.skipped:
        from rich.table import Table
        from rich.text import Text

        more = len(manifest.skipped) - MAX_SHOWN
        caption = f"and {more} more, in {out / 'manifest.json'}" if more > 0 else None
        table = Table(title=f"Skipped: {len(manifest.skipped)} recordings", caption=caption, show_header=False)
        for each in manifest.skipped[:MAX_SHOWN]:
            table.add_row(Text(one_line(each.reason)))
        console(stderr=True).print(table)
    typer.echo(
        f"{out}: {totals['segments']} segments ({train} train, {validation} validation)"
        f" of {totals['audio_s'] / 60:.1f} min in {totals['files']} files; fingerprint {manifest.fingerprint}"
    )
    typer.echo(f"next: dmcodec train teach {shlex.quote(str(out))} --sm MODEL --asr MODEL --lm MODEL")
