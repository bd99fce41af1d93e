"""`dmcodec push`: a bundle to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .bundles import named_bundle
from .common import JsonOption, note, print_json


def push(
    source: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder, or the name of a codec.")],
    target: Annotated[
        str, typer.Argument(metavar="hf://ORG/REPO", help="Repository, made if it is missing, or with @BRANCH.")
    ],
    license_name: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="Licence of the weights as the hub writes it, such as apache-2.0 (required).",
            metavar="NAME",
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the repository's model card, even where push did not write it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Upload a bundle to the Hugging Face hub, with a model card of its figures.

    The bundle is checked first. The token is that of HF_TOKEN or of `hf auth login`.
    """
    from dmcodec.models.push import push as push_bundle

    done = push_bundle(named_bundle(source), target, license_name, private, force)
    pinned = f"{str(done.name).partition('@')[0]}@{done.commit}"
    if as_json:
        print_json(
            {
                "name": str(done.name),
                "commit": done.commit,
                "pinned_name": pinned,
                "size_bytes": done.size_bytes,
                "wrote_card": done.wrote_card,
            }
        )
        return
    if not done.wrote_card:
        note(f"{done.name}: its model card was written by somebody and is kept; --force replaces it")
    typer.echo(f"{done.name}: {done.size_bytes / 1e6:.1f} MB, commit {done.commit}")
    typer.echo(f'load it with Codec.load("{done.name}"), this state for good with Codec.load("{pinned}")')
