"""The command line: a table of verbs, whose work is imported only when a verb runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import typer

from dmcodec.errors import DmcodecError

from . import bench, decode, doctor, encode, evaluate, export, info, pull, reconstruct, verify
from .train import TRAIN_VERBS

VERBS: dict[str, Callable[..., None]] = {
    "encode": encode.encode,
    "decode": decode.decode,
    "reconstruct": reconstruct.reconstruct,
    "export": export.export,
    "bench": bench.bench,
    "evaluate": evaluate.evaluate,
    "verify": verify.verify,
    "doctor": doctor.doctor,
    "info": info.info,
    "pull": pull.pull,
}


def main() -> None:
    """Runs the command line; `--debug` anywhere in it lets errors show their traceback."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    # A SystemExit unwinds like Ctrl-C does: no temporary file is left.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        _app()(arguments, prog_name="dmcodec")
    except DmcodecError as error:
        _fail(str(error), error.exit_code, debug)
    except MemoryError:
        _fail("out of memory; use shorter clips or a machine with more memory", 1, debug)
    except Exception as error:  # noqa: BLE001 - a bug in dmcodec: the user still gets one line
        _fail(f"unexpected {type(error).__name__}: {error} (run again with --debug and report it)", 1, debug)


def _fail(message: str, exit_code: int, debug: bool) -> None:
    if debug:
        raise
    typer.echo(f"error: {message}", err=True)
    sys.exit(exit_code)


def _app() -> typer.Typer:
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_options)
    for verb, function in VERBS.items():
        app.command(verb)(function)
    train = typer.Typer(no_args_is_help=True, help="Train a codec: prepare the audio, teach it, fit the model.")
    for verb, function in TRAIN_VERBS.items():
        train.command(verb)(function)
    app.add_typer(train, name="train")
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from dmcodec import __version__

        typer.echo(f"dmcodec {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks; may stand anywhere in the command."),
) -> None:
    """DM-Codec: speech to tokens and back, through exported graphs."""
