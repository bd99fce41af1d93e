"""`dmcodec pull`: a codec by its name, or the checkpoint that it is made of."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmcodec.errors import ArgumentError

from .bundles import download_progress, say_waiting
from .common import JsonOption, print_json
from .weights import Weights, write_bundle

if TYPE_CHECKING:
    from dmcodec.bundle import Bundle


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="lm-sm, lm, speechtokenizer, encodec-24khz, or a bundle hf://ORG/REPO or hf://ORG/REPO@REVISION.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Only fetch the checkpoint, into this folder (default: export it to a bundle in the user's cache).",
            metavar="DIR",
        ),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(help="Checkpoint, or its folder, that is here already; nothing is downloaded.", metavar="FILE"),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="SHA-256 that the file must have (default: that of an earlier pull).", metavar="HEX"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fetch and export again what is in the cache.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a codec by its name: Codec.load and --bundle then know it.

    The checkpoint is downloaded, checked, exported, and compared with torch; the bundle is kept in the user's cache
    (DMCODEC_CACHE). A bundle of the hub is fetched as it is, and its revision is looked up again. After an
    interruption, the same command goes on.
    """
    from dmcodec.models.names import is_hub_name

    if out is not None and force:
        raise ArgumentError("--force is for the user's cache; leave it or --out out")
    if is_hub_name(name):
        if out is not None or from_file is not None or sha256 is not None or force:
            raise ArgumentError(
                f"{name}: is a bundle of the hub; --out, --from-file, --sha256 and --force are for released models"
            )
        _pull_from_hub(name, as_json)
    elif out is not None:
        _pull_checkpoint(name, out, from_file, sha256, as_json)
    else:
        _pull_bundle(name, from_file, sha256, force, as_json)


def _pull_bundle(name: str, from_file: Path | None, sha256: str | None, force: bool, as_json: bool) -> None:
    from dmcodec.models.pulling import PullOptions, pull_bundle
    from dmcodec.models.store import user_store

    def export(checkpoint: Path, out: Path) -> Bundle:
        report.close()  # the export shows its own
        return write_bundle(Weights(checkpoint), out, force=False)

    with download_progress() as report:
        pulled = pull_bundle(
            name, export, user_store(), PullOptions(from_file, sha256, force), report, lambda: say_waiting(name)
        )
    _print(name, pulled.bundle, {"sha256": pulled.sha256, "fetched": pulled.fetched}, pulled.fetched, as_json)


def _pull_from_hub(name: str, as_json: bool) -> None:
    from dmcodec.bundle import Bundle
    from dmcodec.models.hub_bundles import hub_bundle
    from dmcodec.models.names import hub_name
    from dmcodec.models.store import user_store

    wanted = hub_name(name)
    with download_progress() as report:
        path = hub_bundle(wanted, user_store(), True, report, lambda: say_waiting(name))
    _print(str(wanted), Bundle.open(path), {"commit": path.parent.name}, True, as_json)


def _pull_checkpoint(name: str, out: Path, from_file: Path | None, sha256: str | None, as_json: bool) -> None:
    from dmcodec.models.names import known
    from dmcodec.pull import pull as pull_release

    known(name)
    with download_progress() as report:
        pulled = pull_release(name, out, from_file, sha256, progress=report)
    if as_json:
        paths = {"checkpoint": str(pulled.checkpoint), "config": str(pulled.config)}
        print_json({**paths, "sha256": pulled.sha256, "size_bytes": pulled.size_bytes})
        return
    typer.echo(f"{pulled.checkpoint}: {pulled.size_bytes / 1e6:.1f} MB fetched, sha256 {pulled.sha256}")
    checkpoint, config = shlex.quote(str(pulled.checkpoint)), shlex.quote(str(pulled.config))
    typer.echo(f"next: dmcodec export --checkpoint {checkpoint} --config {config} --out BUNDLE")


def _print(name: str, bundle: Bundle, more: dict[str, Any], is_new: bool, as_json: bool) -> None:
    from dmcodec.models.listing import figures

    if as_json:
        print_json({"name": name, "bundle": str(bundle.path), **more, **figures(bundle.manifest)})
        return
    manifest = bundle.manifest
    done = "model" if is_new else "here already, model"
    size = f"{manifest.size_bytes / 1e6:.1f} MB"
    typer.echo(f"{name}: {done} {manifest.model_id}, {manifest.precision}, {size}, parity passed, in {bundle.path}")
    typer.echo(f"next: dmcodec reconstruct IN.wav -o OUT.wav --bundle {name}")
