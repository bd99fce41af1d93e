"""The table of verbs, and the typer application made from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from dmcodec.cli.train import TRAIN_VERBS
from dmcodec.errors import ArgumentError

from . import (
    bench,
    decode,
    demo,
    doctor,
    encode,
    evaluate,
    export,
    info,
    models,
    pull,
    push,
    reconstruct,
    tokenize,
    verify,
)
from .bundles import resolve_options

Verb = Callable[..., None]

VERBS: dict[str, dict[str, Verb]] = {
    "Use a codec": {
        "encode": encode.encode,
        "decode": decode.decode,
        "reconstruct": reconstruct.reconstruct,
        "tokenize": tokenize.tokenize,
        "info": info.info,
        "demo": demo.demo,
        "models": models.models,
    },
    "Make a bundle": {
        "pull": pull.pull,
        "export": export.export,
        "push": push.push,
    },
    "Check and measure": {
        "verify": verify.verify,
        "bench": bench.bench,
        "evaluate": evaluate.evaluate,
        "doctor": doctor.doctor,
    },
}


class _Command(TyperCommand):
    """A verb whose help shows no types: options without a metavar are flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = {
            name for parameter in self.params if not getattr(parameter, "is_flag", False) for name in parameter.opts
        }
        _refuse_empty(args, options)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        resolve_options(self.name, self.params, ctx.params)
        return super().invoke(ctx)


class _Group(TyperGroup):
    """A group of verbs; called without a verb, it shows its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])


def _refuse_empty(words: Sequence[str], options: Collection[str]) -> None:
    """Raise ArgumentError for an empty argument or value, which a path would take for the current folder.

    Args:
        words: of the call.
        options: that take a value.
    """
    for before, word in zip(("", *words), words, strict=False):
        name, sign, value = word.partition("=")
        if sign and not value and name in options:
            raise ArgumentError(f"{name}: its value is empty; give a name (. is the current folder)")
        if not word:
            what = f"{before}: its value" if before in options else "an argument"
            raise ArgumentError(f"{what} is empty; give a name (. is the current folder)")


def _without_types(parameters: list[Any]) -> list[Any]:
    """Remove what typer adds to the help by itself: `<bool>` after flags, types of arguments, and defaults.

    The help texts name the defaults, since most are worked out when a verb runs.
    """
    for parameter in parameters:
        parameter.show_default = False
        if isinstance(parameter, TyperArgument):
            # Not every version of typer has this method; where it is missing, no type is shown.
            parameter.display_type_rich = _no_type  # type: ignore[method-assign]
        elif parameter.is_flag:
            parameter.metavar = ""
    return parameters


def _no_type(ctx: Any) -> str:  # noqa: ARG001
    return ""


def build_app() -> typer.Typer:
    """Return the application; the work of a verb is imported only when the verb runs."""
    app = typer.Typer(cls=_Group, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_options)
    for panel, verbs in VERBS.items():
        for name, verb in verbs.items():
            _add(app, name, verb, panel)
    train = typer.Typer(cls=_Group, help="Train a codec: prepare audio, run teachers, fit the model.")
    for name, verb in TRAIN_VERBS.items():
        _add(train, name, verb, None)
    app.add_typer(train, name="train", rich_help_panel="Train")
    return app


def _add(app: typer.Typer, name: str, verb: Verb, panel: str | None) -> None:
    app.command(name, cls=_Command, help=_paragraphs(verb), rich_help_panel=panel)(verb)


def _paragraphs(verb: Verb) -> str:
    """Return the docstring with one line for each paragraph, so that the terminal's width decides on line breaks."""
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _print_version(wanted: bool) -> None:
    if wanted:
        from dmcodec import __version__

        typer.echo(f"dmcodec {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks; allowed anywhere in the command."),
) -> None:
    """DM-Codec: speech to tokens and back, through exported graphs."""
