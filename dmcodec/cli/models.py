"""`dmcodec models`: what codecs there are, by name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dmcodec.errors import MissingDependencyError

from .common import JsonOption, console, note, print_json


def models(
    remove: Annotated[
        str | None,
        typer.Option("--remove", help="Remove this codec from the cache instead (default: none).", metavar="NAME"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the codecs that have a name: built in, pulled, of the hub in the cache, and those that can be pulled.

    Names are taken wherever a bundle is named: --bundle NAME, and Codec.load in Python.
    """
    from dmcodec.models.listing import list_models, remove_model
    from dmcodec.models.store import user_store

    if remove is not None:
        store = user_store()
        remove_model(remove, store)
        if as_json:
            print_json({"removed": remove})
        else:
            typer.echo(f"{remove}: removed from the cache {store.folder}")
        return
    try:
        cache = user_store()
    except MissingDependencyError as error:
        note(f"the cache is not listed: {error}")
        cache = None
    rows = [each.to_dict() for each in list_models(cache)]
    if as_json:
        print_json({"cache": str(cache.folder) if cache else None, "models": rows})
        return
    console().print(_table(rows))
    if cache:
        typer.echo(f"cache: {cache.folder}")


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for title in (
        "name",
        "state",
        "MB",
        "precision",
        "kHz",
        "codes/s",
        "kbit/s",
        "decoder SNR dB",
        "STOI",
        "what it is",
    ):
        left = title in ("name", "state", "precision", "what it is")
        table.add_column(title, justify="left" if left else "right", overflow="fold", no_wrap=title == "name")
    for row in rows:
        cells = [
            row["name"],
            row["state"],
            _number(row.get("size_bytes"), 1e6, ".1f"),
            row.get("precision", "-"),
            _number(row.get("sample_rate"), 1000, "g"),
            f"{row['frame_rate']:g} x {row['n_q']}" if "n_q" in row else "-",
            _number(row.get("bitrate_bps"), 1000, "g"),
            _number(row.get("decoder_snr_db"), 1, ".1f"),
            _number(row.get("stoi"), 1, ".3f"),
            row.get("problem", row["title"]),
        ]
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _number(value: float | None, unit: float, form: str) -> str:
    return "-" if value is None else f"{value / unit:{form}}"
