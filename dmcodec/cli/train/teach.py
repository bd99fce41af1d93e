"""`dmcodec train teach`: teachers' features beside the audio."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmcodec.cli.common import JsonOption, print_json, stage_bars
from dmcodec.errors import MissingDependencyError


def teach(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data folder that `train prepare` made.")],
    sm: Annotated[str | None, typer.Option(help="Speech model: hub id or folder.", metavar="MODEL")] = None,
    lm: Annotated[str | None, typer.Option(help="Language model: hub id or folder.", metavar="MODEL")] = None,
    asr: Annotated[
        str | None, typer.Option(help="Recogniser, CTC or Whisper: hub id or folder.", metavar="MODEL")
    ] = None,
    transcripts: Annotated[
        Path | None, typer.Option(help="Given transcripts: file, text or file, start_s, end_s, text.", metavar="TSV")
    ] = None,
    sm_layer: Annotated[str, typer.Option(help="Hidden states of the speech model: avg, last or a number.")] = "avg",
    lm_layer: Annotated[str, typer.Option(help="Hidden states of the language model: avg, last or a number.")] = "avg",
    align: Annotated[
        bool, typer.Option("--align", help="Spread the LM's tokens over their words' times (not the paper's form).")
    ] = False,
    frame_rate: Annotated[float, typer.Option(help="Of --align's features, in Hz.")] = 50.0,
    language: Annotated[
        str | None, typer.Option(help="Of the speech, for multilingual Whisper (default: found out).")
    ] = None,
    asr_window: Annotated[
        float | None, typer.Option(help="Seconds that a Whisper recogniser sees (default: its 30; shorter is faster).")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Segments at a time.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... (default: cuda if there is one).")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: torch's choice).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Teach again what was taught otherwise.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Store teachers' features in a data folder; run again after an interruption, it goes on where it stopped."""
    try:
        from dmcodec.training.data.given_transcripts import read_tsv
        from dmcodec.training.teach.teach import TeachSettings
        from dmcodec.training.teach.teach import teach as teach_data
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'teaching needs {error.name}, which is not installed; run `pip install "dmcodec[train]"`'
        ) from None
    settings = TeachSettings(
        sm, lm, asr, sm_layer, lm_layer, align, language, asr_window, frame_rate, batch_size, device, threads
    )
    given = read_tsv(transcripts) if transcripts else None
    with stage_bars() as report:
        taught = teach_data(data, settings, given, force, report)
    if as_json:
        from dataclasses import asdict

        print_json({kind: asdict(info) for kind, info in taught.items()})
        return
    for kind, info in taught.items():
        form = ", aligned" if info.aligned else ""
        size_mb = sum(info.size_bytes) / 1e6
        typer.echo(
            f"{kind}: {info.model}, {info.layers}, {info.width} wide, {info.frame_rate_hz:g} Hz{form}, {size_mb:.1f} MB"
        )
    typer.echo(f"next: dmcodec train fit --data {data} --help")
