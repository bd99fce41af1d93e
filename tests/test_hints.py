"""Every command that the program prints, in a message or in a help text, is accepted by the program as written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import BadCommandError, check_command

ROOT = Path(__file__).parent.parent
FOLDERS = ("dmcodec", "runtime", "export", "benchmarks")
BACKQUOTED = re.compile(r"`([^`]*)`")
AFTER_A_WORD = re.compile(r"(?:^|\s)(?:next|run|export|call):? (dmcodec .*?)(?:\s\(.*)?$", re.MULTILINE)
PROGRAM = re.compile(r"(?:\S+=\S+ )*(?:dmcodec|pip|python3? -m|accelerate launch)(?:\s|$)")
VERB_ONLY = re.compile(r"dmcodec( [a-z]+)*$")
WITH_EXTRA = re.compile(r"dmcodec\[[\w,-]+\]")


def files() -> list[Path]:
    """Return all source files of the package, each once."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return sorted({path.resolve() for path in found})


def strings(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Yield line, text and whether it is a docstring, for each string; a value in an f-string becomes `X`."""
    docstrings, parts = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr):
                docstrings.add(id(first.value))
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = (part.value if isinstance(part, ast.Constant) else "X" for part in node.values)
            yield node.lineno, "".join(str(value) for value in values), False
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value, id(node) in docstrings


def printed_commands(text: str) -> list[str]:
    """Return the commands in a message: in backquotes, or after `next:`, `run` and the like."""
    found = BACKQUOTED.findall(text) + AFTER_A_WORD.findall(BACKQUOTED.sub("", text))
    return [command.replace("--X", "--help") for command in found if PROGRAM.match(command)]


def wrong_commands(path: Path, root: Path = ROOT) -> list[str]:
    """Return a line for each command in a file that the program would refuse."""
    found = []
    for line, text, is_docstring in strings(ast.parse(path.read_text(encoding="utf-8"))):
        for command in printed_commands(text):
            try:
                check_command(f"{command} ..." if is_docstring or VERB_ONLY.match(command) else command)
            except BadCommandError as error:
                found.append(f"{path.relative_to(root)}:{line}: {error}")
        for extra in WITH_EXTRA.finditer(text):
            if text[extra.start() - 1 : extra.start()] != '"' or text[extra.end() : extra.end() + 1] != '"':
                found.append(f"{path.relative_to(root)}:{line}: {extra[0]} is not in quotes")
    return found


def test_hints_are_right_commands() -> None:
    wrong = [line for path in files() for line in wrong_commands(path)]
    assert not wrong, "\n".join(wrong)


def test_hints_are_found() -> None:
    source = 'a = f"{x}: none; run `dmcodec train teach {x} --sm MODEL` again"\nb = f"next: dmcodec info {x}.dmc"'
    found = [command for _, text, _ in strings(ast.parse(source)) for command in printed_commands(text)]
    assert found == ["dmcodec train teach X --sm MODEL", "dmcodec info X.dmc"]


@pytest.mark.parametrize(
    "message", ["run `dmcodec encodes x`", 'run `pip install "dmcodec[nothing]"`', "run dmcodec x"]
)
def test_wrong_hints_are_seen(message: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(f"message = {message!r}\n")
    assert wrong_commands(path, tmp_path)
