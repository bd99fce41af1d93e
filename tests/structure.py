"""The structure of the repository as rules: each takes the root of a tree and returns its violations."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_LINES = 400

# Folder of a module -> folders that it may import from; "core" is dmcodec/*.py. All imports count: those in functions,
# and those for type checkers.
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "core": frozenset(),
    "nn": frozenset({"core"}),
    "pretrained": frozenset({"core"}),
    "training": frozenset({"core", "nn", "pretrained"}),
    "runtime": frozenset({"core"}),
    "export": frozenset({"core", "nn", "runtime"}),
    "demo": frozenset({"core", "runtime"}),
    "benchmarks": frozenset({"core", "nn", "pretrained", "runtime", "export"}),
    "cli": frozenset({"core", "nn", "pretrained", "training", "runtime", "export", "benchmarks", "demo"}),
}
# Modules that may import from one folder more.
EXCEPTIONS = {
    ("dmcodec.pull", "nn"),  # converts a released checkpoint to the weights of the network
    ("dmcodec.__main__", "cli"),
}
# What may import torch when it is imported itself; everything else imports it in functions, where it is needed.
TORCH = ("dmcodec.nn", "dmcodec.training", "dmcodec.export", "dmcodec.pretrained", "dmcodec.benchmarks.codecs.torch")
# The only file that imports onnxruntime: its telemetry is off there.
ONNXRUNTIME_IMPORT = Path("runtime/onnxruntime_import.py")
NO_TORCH = ("dmcodec.export.parity", "dmcodec.export.agreement", "dmcodec.export.tensorrt")

AT_IMPORT, IN_FUNCTION, FOR_TYPES = "at import", "in a function", "for type checkers"


@dataclass(frozen=True)
class Module:
    """A Python file of the package. `path` is relative to the root of the tree."""

    name: str
    path: Path
    tree: ast.Module
    lines: tuple[str, ...]

    @property
    def package(self) -> str:
        """The folder that it lies in, as a package."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    @property
    def folder(self) -> str:
        """The folder as in MAY_IMPORT."""
        part = (*self.name.split("."), "core")[1]
        return part if part in MAY_IMPORT and self.package != "dmcodec" else "core"


@dataclass(frozen=True)
class Import:
    """One imported name. `target` is a module of the tree, or whatever else is imported."""

    importer: Module
    line: int
    target: str
    relative: bool
    above: bool
    when: str

    def __str__(self) -> str:
        text = self.importer.lines[self.line - 1].strip()
        return f"{self.importer.path}:{self.line}: {text}" + ("" if self.when == AT_IMPORT else f" ({self.when})")


@cache
def modules(root: Path) -> Mapping[str, Module]:
    """Return all modules of the package by name; the mapping of folders is that of pyproject.toml."""
    found = {}
    for package, folder in _setuptools(root)["package-dir"].items():
        for path in _python_files(root / folder):
            parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            found[name] = Module(name, path.relative_to(root), ast.parse(text), tuple(text.splitlines()))
    return found


@cache
def imports(root: Path) -> tuple[Import, ...]:
    """Return all imports of all modules, wherever in the files they are."""
    return tuple(found for module in modules(root).values() for found in _imports(module, modules(root)))


def circles(root: Path) -> list[str]:
    """Return the shortest circle through each group of modules that import each other.

    Imports in functions count. Those for type checkers do not: they never run, so they can't fail.
    """
    edges: dict[str, dict[str, Import]] = {name: {} for name in modules(root)}
    for found in imports(root):
        if found.when != FOR_TYPES and found.target in edges and found.target != found.importer.name:
            edges[found.importer.name].setdefault(found.target, found)
    violations: list[str] = []
    seen: set[str] = set()
    for name in edges:
        circle = _way(edges, name, name)
        if circle and not seen & {found.importer.name for found in circle}:
            seen |= {found.importer.name for found in circle}
            violations.append(f"circle of {len(circle)} modules:\n  " + "\n  ".join(map(str, circle)))
    return violations


def directions(root: Path) -> list[str]:
    """Return imports from folders that MAY_IMPORT does not allow."""
    known, violations = modules(root), []
    for found in imports(root):
        if found.target in known:
            importer, source = found.importer, known[found.target].folder
            allowed = MAY_IMPORT[importer.folder] | {importer.folder}
            if source not in allowed and (importer.name, source) not in EXCEPTIONS:
                violations.append(f"{found}: {importer.folder} must not import {source}")
    return _unique(violations)


def torch_at_import(root: Path) -> list[str]:
    """Return imports of torch that run when a module is imported which must not need torch."""
    return _unique(
        f"{found}: here torch is imported in functions only"
        for found in imports(root)
        if found.target.split(".")[0] == "torch" and found.when == AT_IMPORT
        if not _is_in(found.importer.name, TORCH) or _is_in(found.importer.name, NO_TORCH)
    )


def onnxruntime_imports(root: Path) -> list[str]:
    """Return imports of onnxruntime outside ONNXRUNTIME_IMPORT, also in programs that are strings."""
    statement, call = r"^\s*(?:import|from)\s+onnxruntime\b", r"(?:import_module|importorskip)\([\"']onnxruntime\b"
    pattern = re.compile(f"{statement}|{call}", re.MULTILINE)
    return [
        f"{path.relative_to(root)}: imports onnxruntime; take it from {ONNXRUNTIME_IMPORT.as_posix()}"
        for path in _python_files(root)
        if path.relative_to(root) != ONNXRUNTIME_IMPORT and pattern.search(path.read_text(encoding="utf-8"))
    ]


def relative_imports(root: Path) -> list[str]:
    """Return absolute imports within a folder, relative imports between folders, and all imports with `..`."""
    known, violations = modules(root), []
    for found in imports(root):
        if found.above:
            violations.append(f"{found}: `..` is not used; write the absolute name")
        elif found.target in known:
            same = known[found.target].package == found.importer.package
            if same and not found.relative:
                violations.append(f"{found}: within a folder imports are relative")
            elif found.relative and not same:
                violations.append(f"{found}: between folders imports are absolute")
    return _unique(violations)


def long_files(root: Path) -> list[str]:
    """Return Python files, tests included, of more than MAX_LINES lines."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _python_files(root)}
    return [
        f"{path.relative_to(root)}: {length} lines, more than {MAX_LINES}; split it"
        for path, length in lengths.items()
        if length > MAX_LINES
    ]


def listed_packages(root: Path) -> list[str]:
    """Return differences between `packages` in pyproject.toml and the folders on disk."""
    listed = set(_setuptools(root)["packages"])
    on_disk = {module.package for module in modules(root).values()}
    without_init = on_disk - set(modules(root))
    return [
        *(f"pyproject.toml: packages lacks {name}, a folder with Python files" for name in sorted(on_disk - listed)),
        *(f"pyproject.toml: packages names {name}, which is no folder" for name in sorted(listed - on_disk)),
        *(f"{name.replace('.', '/')}: has no __init__.py" for name in sorted(without_init)),
    ]


def docstrings(root: Path) -> list[str]:
    """Return modules of the package without a docstring."""
    missing = [module for module in modules(root).values() if not ast.get_docstring(module.tree)]
    return [f"{module.path}: has no docstring" for module in missing]


RULES: tuple[Callable[[Path], list[str]], ...] = (
    circles, directions, torch_at_import, onnxruntime_imports, relative_imports, long_files, listed_packages,
    docstrings,
)  # fmt: skip


def _setuptools(root: Path) -> dict[str, dict[str, str]]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def _python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files below a folder; links, hidden folders, builds and environments are left out."""
    for parent, folders, files in os.walk(folder):
        inside = [
            name for name in sorted(folders) if not name.startswith(".") and name not in ("build", "site-packages")
        ]
        folders[:] = [name for name in inside if not (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in sorted(files) if name.endswith(".py"))


def _imports(module: Module, known: Mapping[str, Module]) -> Iterator[Import]:
    for node, when in _with_time(module.tree, AT_IMPORT):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name, False, False, when)
        elif isinstance(node, ast.ImportFrom):
            parents = module.package.split(".")[: len(module.package.split(".")) - max(0, node.level - 1)]
            base = ".".join([*(parents if node.level else []), *([node.module] if node.module else [])])
            targets = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
            for target in sorted(targets):
                yield Import(module, node.lineno, target, node.level > 0, node.level > 1, when)


def _with_time(node: ast.AST, when: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield all nodes, and when the code there runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) and when == AT_IMPORT:
            yield from _with_time(child, IN_FUNCTION)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield statement, FOR_TYPES
                yield from _with_time(statement, FOR_TYPES)
            for statement in child.orelse:
                yield statement, when
                yield from _with_time(statement, when)
        else:
            yield child, when
            yield from _with_time(child, when)


def _way(edges: Mapping[str, Mapping[str, Import]], start: str, end: str) -> list[Import]:
    """Return the shortest way from a module to another over at least one import; empty if there is none."""
    ways: dict[str, list[Import]] = {start: []}
    waiting = [start]
    for name in waiting:  # grows
        for target, found in edges[name].items():
            way = [*ways[name], found]
            if target == end:
                return way
            if target not in ways:
                ways[target] = way
                waiting.append(target)
    return []


def _unique(violations: Iterable[str]) -> list[str]:
    """Return each violation once: one line can import several names."""
    return list(dict.fromkeys(violations))


def _is_in(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
