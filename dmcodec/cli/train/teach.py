"""`dmcodec train teach`: features of the teachers, stored beside the audio."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer

from dmcodec.cli.common import JsonOption, TranscriptsOption, missing_dependency, print_json
from dmcodec.cli.progress import show_progress

TEACHERS = "Teachers"
RECOGNISER = "Transcripts"


def teach(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data folder that `train prepare` wrote.")],
    batch_size: Annotated[int, typer.Option(help="Segments in a batch (default: 16).", metavar="N")] = 16,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ... (default: cuda if there is a GPU).", metavar="NAME")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: torch's choice).", metavar="N")] = None,
    sm: Annotated[
        str | None,
        typer.Option(help="Speech model: hub id or folder.", metavar="MODEL", rich_help_panel=TEACHERS),
    ] = None,
    sm_layer: Annotated[
        str,
        typer.Option(
            help="Hidden states of the speech model: avg, last or a number (default: avg).",
            metavar="LAYER",
            rich_help_panel=TEACHERS,
        ),
    ] = "avg",
    lm: Annotated[
        str | None,
        typer.Option(help="Language model: hub id or folder.", metavar="MODEL", rich_help_panel=TEACHERS),
    ] = None,
    lm_layer: Annotated[
        str,
        typer.Option(
            help="Hidden states of the language model: avg, last or a number (default: avg).",
            metavar="LAYER",
            rich_help_panel=TEACHERS,
        ),
    ] = "avg",
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="Spread the text tokens of a word over the time of the word (not in the paper).",
            rich_help_panel=TEACHERS,
        ),
    ] = False,
    frame_rate: Annotated[
        float,
        typer.Option(
            help="With --align: frame rate of the features (default: 50).", metavar="HZ", rich_help_panel=TEACHERS
        ),
    ] = 50.0,
    asr: Annotated[
        str | None,
        typer.Option(
            help="Speech recogniser, CTC or Whisper: hub id or folder.", metavar="MODEL", rich_help_panel=RECOGNISER
        ),
    ] = None,
    asr_window: Annotated[
        float | None,
        typer.Option(
            help="Input length of a Whisper recogniser; a shorter one is faster (default: its own, 30).",
            metavar="SECONDS",
            rich_help_panel=RECOGNISER,
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Language of the speech, for multilingual Whisper models (default: detected).",
            metavar="NAME",
            rich_help_panel=RECOGNISER,
        ),
    ] = None,
    transcripts: TranscriptsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace features made with other settings.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Store features of the teachers in a data folder.

    After an interruption, the same command continues the work.
    """
    try:
        from dmcodec.training.data.dataset import PreparedData
        from dmcodec.training.data.given_transcripts import read_tsv
        from dmcodec.training.teach.teach import TeachSettings
        from dmcodec.training.teach.teach import teach as teach_data
    except ModuleNotFoundError as error:
        raise missing_dependency("teaching", error, "train") from None
    settings = TeachSettings(
        sm=sm,
        lm=lm,
        asr=asr,
        sm_layer=sm_layer,
        lm_layer=lm_layer,
        align=align,
        language=language,
        asr_window_s=asr_window,
        frame_rate_hz=frame_rate,
        batch_size=batch_size,
        device=device,
        threads=threads,
    )
    texts = read_tsv(transcripts) if transcripts else None
    with show_progress() as report:
        taught = teach_data(data, settings, texts, force, report)
    if as_json:
        print_json({kind: dataclasses.asdict(info) for kind, info in taught.items()})
        return
    for kind, info in taught.items():
        form = ", aligned" if info.aligned else ""
        size_mb = sum(info.size_bytes) / 1e6
        typer.echo(
            f"{kind}: {info.model}, {info.layers}, {info.width} wide, {info.frame_rate_hz:g} Hz{form}, {size_mb:.1f} MB"
        )
    # By default `fit` distills both teachers.
    missing = {"lm", "sm"} - set(PreparedData.open(data).teachers)
    distill = "".join(f" --distill {kind}" for kind in {"lm", "sm"} - missing) if missing else ""
    typer.echo(f"next: dmcodec train fit {shlex.quote(str(data))} --out RUN{distill}")
