"""The command line. Start at `app.VERBS`: each verb is a module, whose work is imported only when the verb runs."""

from __future__ import annotations

import sys
from itertools import takewhile
from typing import Any

import typer

from dmcodec.cli.train import TRAIN_VERBS
from dmcodec.errors import DmcodecError, ExportError
from dmcodec.extras import missing_package
from dmcodec.text import one_line

from .app import VERBS, build_app
from .signals import unwinding_signals
from .standard_streams import prepared_streams
from .warnings import warnings_as_lines

# Verb -> the extra that its work is part of.
_EXTRAS = {
    "bench": "bench",
    "evaluate": "evaluate",
    "export": "export",
    "pull": "pull",
    "push": "hub",
    "tokenize": "corpus",
    "train": "train",
}


def main() -> None:
    """Run the command line and exit; every error is one line on stderr, or with `--debug` its traceback."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    with prepared_streams(), unwinding_signals():
        _run(arguments, debug=len(arguments) < len(sys.argv) - 1)


def _run(arguments: list[str], debug: bool) -> None:
    try:
        with warnings_as_lines():
            exit_code = build_app()(arguments, prog_name="dmcodec", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except DmcodecError as error:
        # The message of an export may hold a log; a line break in any other comes from the name of a file.
        _fail(str(error) if isinstance(error, ExportError) else one_line(str(error)), error.exit_code, debug)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130, debug)
    except ModuleNotFoundError as error:  # of a package that a function imports where it needs it
        if (error.name or "").startswith("dmcodec"):
            _fail(f"{error}: this installation is incomplete; install dmcodec again", 1, debug)
        verb = next((argument for argument in arguments if not argument.startswith("-")), "dmcodec")
        _fail(str(missing_package(error, verb, _EXTRAS.get(verb))), 1, debug)
    except MemoryError:
        _fail("out of memory; use shorter clips or a machine with more memory", 1, debug)
    except Exception as error:  # noqa: BLE001 - a bug in dmcodec: the user still gets one line
        if hasattr(error, "format_message"):  # click's exceptions; some versions of typer have a copy of click
            _fail(one_line(_usage_message(error, arguments)), getattr(error, "exit_code", 2), debug)
        _fail(f"unexpected {type(error).__name__}: {error} (run again with --debug and report it)", 1, debug)
    if exit_code == 130:  # some versions of typer return it after Ctrl-C
        typer.echo("error: interrupted", err=True)
    sys.exit(exit_code)  # None after success; the code of a typer.Exit


def _usage_message(error: Any, arguments: list[str]) -> str:
    """Return one line that says what is wrong with the call, and where the help is."""
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:  # the parser of options doesn't know the verb
        verbs = {name for names in (*VERBS.values(), TRAIN_VERBS) for name in names} | {"train"}
        path = " ".join(["dmcodec", *takewhile(verbs.__contains__, arguments)])
    else:
        path = context.command_path
        options = {option for parameter in context.command.params for option in parameter.opts}
        if message.startswith("Got unexpected extra argument") and "--bundle" in options:
            message += "; name a bundle with --bundle BUNDLE"
        elif message.startswith("Got unexpected extra argument") and "--out" in options:
            message += "; name an output with --out PATH"
    return f"{message[:1].lower()}{message[1:]} (see {path} --help)"


def _fail(message: str, exit_code: int, debug: bool) -> None:
    if debug:
        raise
    typer.echo(f"error: {message}", err=True)
    sys.exit(exit_code)
