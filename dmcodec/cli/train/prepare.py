"""`dmcodec train prepare`: audio to a data folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.cli.common import JsonOption, console, print_json, progress_bar
from dmcodec.errors import ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    from dmcodec.training.data.layout import Manifest

SHOWN = 10  # skipped recordings; the manifest has all


def prepare(
    audio: Annotated[
        list[str], typer.Argument(metavar="AUDIO...", help="Files, folders, globs, or one hf:NAME[:CONFIG].")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Data folder to make.", metavar="DATA")],
    segment: Annotated[float, typer.Option(help="Length of a segment, in seconds.")] = 3.0,
    sample_rate: Annotated[int, typer.Option(help="Of the codec, in Hz.")] = 16000,
    min_duration: Annotated[float, typer.Option(help="Recordings shorter than this are skipped, in seconds.")] = 0.5,
    silence: Annotated[float, typer.Option(help="Recordings with a peak below this are skipped, in dBFS.")] = -60.0,
    validation: Annotated[float, typer.Option(help="Share of files or speakers that validate.")] = 0.05,
    split_by: Annotated[str, typer.Option(help="file or speaker: what is never in both splits.")] = "file",
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    speaker_from: Annotated[
        str | None, typer.Option(help="parent or top (folder), or regex:PATTERN on the relative path.")
    ] = None,
    transcripts: Annotated[
        Path | None, typer.Option(help="Given transcripts: file, text or file, start_s, end_s, text.", metavar="TSV")
    ] = None,
    hf_split: Annotated[str, typer.Option(help="Split of the Hugging Face dataset to read.")] = "train",
    speaker_column: Annotated[str | None, typer.Option(help="Column of the dataset with speakers.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the dataset with transcripts.")] = None,
    threads: Annotated[int | None, typer.Option(help="That read and resample (default: all CPUs, at most 8).")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first recording that can't be used.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Prepare again whatever is in DATA.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Cut audio into segments for training; run again after an interruption, it goes on where it stopped."""
    try:
        from dmcodec.audio_sources import DatasetOptions, find_sources
        from dmcodec.training.data.given_transcripts import check_used, read_tsv
        from dmcodec.training.data.prepare import PrepareSettings
        from dmcodec.training.data.prepare import prepare as prepare_data
        from dmcodec.training.data.storage import arrow
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'training needs {error.name}, which is not installed; run `pip install "dmcodec[train]"`'
        ) from None
    arrow()
    if threads is not None and threads < 1:
        raise ArgumentError(f"--threads {threads} must be at least 1")
    settings = PrepareSettings(sample_rate, segment, min_duration, silence, split_by, validation, seed)
    given = read_tsv(transcripts) if transcripts else None
    sources = find_sources(audio, speaker_from, DatasetOptions(hf_split, speaker_column, text_column))
    if given and transcripts:
        check_used(given, [sources.get(index).name for index in range(sources.count)], transcripts)
    with progress_bar() as progress:
        task = progress.add_task("prepare", total=sources.count)

        def report(_stage: str, done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        count = threads or min(os.cpu_count() or 1, 8)
        manifest = prepare_data(sources, out, settings, given, count, strict, force, report)
    if as_json:
        print_json({"data": str(out), **_summary(manifest)})
        return
    _show(out, manifest)


def _summary(manifest: Manifest) -> dict[str, Any]:
    skipped = [{"source": each.source, "reason": each.reason} for each in manifest.skipped]
    return {"fingerprint": manifest.fingerprint, **manifest.totals, "skipped": skipped}


def _show(out: Path, manifest: Manifest) -> None:
    totals = manifest.totals
    train, validation = totals["train_segments"], totals["validation_segments"]
    if manifest.skipped:
        from rich.table import Table
        from rich.text import Text

        more = len(manifest.skipped) - SHOWN
        caption = f"and {more} more, in {out / 'manifest.json'}" if more > 0 else None
        table = Table(title=f"Skipped: {len(manifest.skipped)} recordings", caption=caption, show_header=False)
        for each in manifest.skipped[:SHOWN]:
            table.add_row(Text(each.reason))
        console(stderr=True).print(table)
    typer.echo(
        f"{out}: {totals['segments']} segments ({train} train, {validation} validation)"
        f" of {totals['audio_s'] / 60:.1f} min in {totals['files']} files; fingerprint {manifest.fingerprint}"
    )
    typer.echo(f"next: dmcodec train teach {out} --sm MODEL --asr MODEL --lm MODEL")
