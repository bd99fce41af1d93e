"""`dmcodec pull`: a released checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import JsonOption, print_json


def pull(
    name: Annotated[str, typer.Argument(metavar="lm-sm|lm", help="Which released model.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to put it in.")],
    from_file: Annotated[
        Path | None, typer.Option(help="A file fetched by other means, instead of downloading.", metavar="FILE")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="What the fetched file's sha256 must be.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a released checkpoint, check it, record its sha256, and convert it to safetensors."""
    from dmcodec.pull import pull as pull_release

    pulled = pull_release(name, folder, from_file, sha256)
    if as_json:
        paths = {"checkpoint": str(pulled.checkpoint), "config": str(pulled.config)}
        print_json({**paths, "sha256": pulled.sha256, "size_bytes": pulled.size_bytes})
        return
    typer.echo(f"{pulled.checkpoint}: {pulled.size_bytes / 1e6:.1f} MB fetched, sha256 {pulled.sha256}")
    typer.echo(f"next: dmcodec export --checkpoint {pulled.checkpoint} --config {pulled.config} --out BUNDLE")
