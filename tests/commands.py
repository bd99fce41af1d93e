"""Check commands that a page or the program prints: the verb, its options and its extras exist as written.

`check_command` takes one command as a user would type it. Placeholders are allowed: words in capitals (`BUNDLE`, `N`,
`A:B:C`), `<name>`, and a `...` at the end, which stands for further arguments. Nothing is run.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import typer

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
PROGRAMS = (("dmcodec",), ("python", "-m", "dmcodec"), ("python3", "-m", "dmcodec"))
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*([:=+,/.-][A-Z][A-Z0-9_]*)*$|<[^<>]+>$")
UNQUOTED_EXTRAS = re.compile(r"(?<![\w\"'./@])(?:dmcodec|\.)\[|(?<!\S)[\w./-]+\[\w[\w,-]*\](?!\S)")
SEPARATORS = frozenset({"|", "||", "&&", ";", "&", "do", "done", "(", ")"})
REDIRECTIONS = frozenset({"<", ">", ">>"})


class BadCommandError(ValueError):
    """A command that would not be accepted; the message names the command and the reason."""


def check_command(text: str) -> None:
    """Check every dmcodec and pip call in one line of shell; other programs are passed over.

    Args:
        text: the command as printed; a backslash joins lines, `#` starts a comment, `|` and `&&` separate commands.

    Raises:
        BadCommandError: a verb or option does not exist, an argument is missing or too many, an extra does not exist or
            is not quoted.
    """
    text = text.replace("\\\n", " ").strip()
    for words in _split(text):
        if "pip" in words and "install" in words:
            _check_extras(text, words)
        arguments = _dmcodec_arguments(words)
        if arguments is not None:
            _check_arguments(text, arguments)


def _split(text: str) -> list[list[str]]:
    """Return the words of each command in a line, without redirections and assignments before the program."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;><()")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    skip = False
    try:
        words = list(lexer)
    except ValueError as error:
        raise BadCommandError(f"{text}: {error}") from None
    for word in words:
        if word in SEPARATORS:
            commands.append([])
        elif word in REDIRECTIONS:
            skip = True
        elif skip:
            skip = False
        elif commands[-1] or not re.match(r"[A-Za-z_]+=", word):
            commands[-1].append(word)
    return [words for words in commands if words]


def _dmcodec_arguments(words: list[str]) -> list[str] | None:
    """Return what follows the program's name, or None where another program is called."""
    if words[0] == "$":
        words = words[1:]
    if words[:2] == ["accelerate", "launch"] and "dmcodec" in words:
        return words[words.index("dmcodec") + 1 :]
    for program in PROGRAMS:
        if tuple(words[: len(program)]) == program:
            return words[len(program) :]
    return None


def _check_extras(text: str, words: list[str]) -> None:
    if UNQUOTED_EXTRAS.search(text):
        raise BadCommandError(f'{text}: write the extras in quotes, as in pip install "dmcodec[cpu]"')
    for word in words:
        if match := re.match(r"(?:dmcodec|\.)\[([\w,-]+)\]", word):
            for extra in match[1].split(","):
                if extra not in _extras() and not PLACEHOLDER.match(extra):
                    raise BadCommandError(f"{text}: there is no extra {extra!r}; there are {', '.join(_extras())}")


def _check_arguments(text: str, arguments: list[str]) -> None:
    command, path, group = _root(), "dmcodec", True
    arguments = [word for word in arguments if word != "--debug"]
    while group and arguments and not arguments[0].startswith("-"):
        verb = arguments.pop(0)
        if verb == "...":
            return
        if verb not in command.commands:
            raise BadCommandError(f"{text}: {path} has no verb {verb!r}")
        command, path = command.commands[verb], f"{path} {verb}"
        group = hasattr(command, "commands")
    if "--help" in arguments or (group and arguments == ["--version"]):
        return
    if group:
        raise BadCommandError(f"{text}: names no verb")
    open_end = "..." in arguments
    words = ["1" if PLACEHOLDER.match(word) else word for word in arguments if word != "..."]
    try:
        command.make_context(path, words)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if open_end and type(error).__name__ == "MissingParameter":
            return
        raise BadCommandError(f"{text}: {error.format_message()}") from None


@cache
def _root() -> Any:
    from dmcodec.cli.app import build_app

    return typer.main.get_command(build_app())


@cache
def _extras() -> tuple[str, ...]:
    return tuple(tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"])
