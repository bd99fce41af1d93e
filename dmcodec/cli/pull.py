"""`dmcodec pull`: a released checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, print_json


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Released model: lm-sm or lm.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the checkpoint.", metavar="DIR")],
    from_file: Annotated[
        Path | None, typer.Option(help="Checkpoint file that is here already; nothing is downloaded.", metavar="FILE")
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="SHA-256 that the file must have (default: that of an earlier pull).", metavar="HEX"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download a released checkpoint and convert it to safetensors.

    Its SHA-256 and its source are recorded beside it. After an interruption, the same command resumes the download.
    """
    from dmcodec.pull import pull as pull_release

    pulled = pull_release(name, out, from_file, sha256)
    if as_json:
        paths = {"checkpoint": str(pulled.checkpoint), "config": str(pulled.config)}
        print_json({**paths, "sha256": pulled.sha256, "size_bytes": pulled.size_bytes})
        return
    typer.echo(f"{pulled.checkpoint}: {pulled.size_bytes / 1e6:.1f} MB fetched, sha256 {pulled.sha256}")
    checkpoint, config = shlex.quote(str(pulled.checkpoint)), shlex.quote(str(pulled.config))
    typer.echo(f"next: dmcodec export --checkpoint {checkpoint} --config {config} --out BUNDLE")
