"""Which files arguments name: files, folders and glob patterns; and what in the folders is left out."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from .errors import InputNotFoundError
from .temporary import is_temporary

STDIN = "-"
_SHOWN = 5
_SEPARATORS = re.escape(os.sep + (os.altsep or ""))
_STARS = re.compile(rf"(?:^|(?<=[{_SEPARATORS}]))\*\*(?:[{_SEPARATORS}]+|$)")  # `**` alone between separators
HIDDEN, OTHER_SUFFIX, OUTPUTS = "hidden", "another suffix", "the folder of the outputs"
SEEN = "a link to a folder that is searched already"
FOLDER = "a folder, which a pattern does not search"
FIFO, SOCKET, DEVICE = "a FIFO; name it to read it", "a socket", "a device"
NO_NEEDS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class FoundFile:
    """A file that an argument named. `relative`: its path below a named folder; else its name."""

    path: Path
    relative: Path


@dataclass(frozen=True)
class LeftOut:
    """A file or a folder below a named folder that does not count, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Problem:
    """An argument that names nothing, or a folder that can't be read."""

    path: Path
    error: InputNotFoundError


@dataclass(frozen=True)
class Found:
    """What arguments name, in their order; `left_out` and `problems` are what they don't give."""

    files: list[FoundFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def only(self) -> list[FoundFile]:
        """Return the files; raise the error of the first problem where there is one."""
        for problem in self.problems:
            raise problem.error
        return self.files


def find_files(arguments: Iterable[str], suffixes: Collection[str]) -> list[FoundFile]:
    """Find the files that arguments name, as `search` does.

    Raises:
        InputNotFoundError: a folder or a pattern that holds no such file, or a folder that can't be read.
    """
    return search(arguments, suffixes).only()


def search(
    arguments: Iterable[str],
    suffixes: Collection[str],
    out: Path | None = None,
    needs: Mapping[str, str] = NO_NEEDS,
) -> Found:
    """Find the files that arguments name, in the order of the arguments.

    Args:
        arguments: files, folders and glob patterns. A folder stands for all files below it with one of the suffixes,
            sorted. Links are followed, to files and to folders; a folder that several paths lead to is searched once,
            under the path without links. A file counts under each of its names. Hidden files and folders do not
            count, nor do FIFOs, sockets and devices. A pattern stands for all files that match it, sorted, whatever
            their suffixes.
        suffixes: lower case, with the dot.
        out: a folder that is not searched where it lies below a folder: that of the outputs.
        needs: other suffixes that would count if something were there; files with them are left out for this reason.

    Returns:
        Files that are there, and single files as they were named: whether those exist shows when they are read.
    """
    found = Found()
    for argument in arguments:
        path = Path(argument)
        if argument != STDIN and os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where the name is too long
            _Walk(path, suffixes, found, out, needs).run()
        elif argument == STDIN or not glob.has_magic(argument) or os.path.exists(path):  # noqa: PTH110 - as above
            found.files.append(FoundFile(path, Path(path.name)))
        else:
            _match(argument, found)
    return found


def _match(pattern: str, found: Found) -> None:
    matches = sorted({Path(match) for match in _glob(pattern)})
    reasons = {match: FOLDER if match.is_dir() else _no_file(match) for match in matches}
    files = [match for match in matches if reasons[match] is None]
    found.left_out.extend(LeftOut(match, reason) for match, reason in reasons.items() if reason is not None)
    if not files:
        problem = InputNotFoundError(f"{pattern}: no files match this pattern")
        found.problems.append(Problem(Path(pattern), problem))
    folders = _shortest_paths({file.parent for file in files})
    found.left_out.extend(LeftOut(file, SEEN) for file in files if file.parent not in folders)
    found.files.extend(FoundFile(file, Path(file.name)) for file in files if file.parent in folders)


def _glob(pattern: str) -> Iterator[str]:
    """Yield what matches a pattern; `**` stands for all folders below, each once: through links they may form loops."""
    stars = _STARS.search(pattern)
    if stars is None:
        yield from glob.glob(pattern)
        return
    head, tail = pattern[: stars.start()], pattern[stars.end() :]
    for base in glob.glob(head) if head else [""]:
        for folder in _folders_below(base):
            inside = _glob(os.path.join(glob.escape(folder), tail or "*"))  # noqa: PTH118 - a pattern
            yield from inside if tail else (each for each in inside if not os.path.isdir(each))  # noqa: PTH112


def _folders_below(base: str) -> Iterator[str]:
    """Yield a folder and those below it that are not hidden: each once, first those that no link leads to."""
    seen: set[tuple[int, int]] = set()
    links = [base]
    while links:
        folders, links = sorted(links, reverse=True), []
        while folders:
            folder = folders.pop()
            identity = _identity(Path(folder))
            if identity is None or identity in seen:
                continue
            seen.add(identity)
            yield folder
            with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
                for entry in entries:
                    if _is_folder(entry) and not entry.name.startswith("."):
                        (links if entry.is_symlink() else folders).append(os.path.join(folder, entry.name))  # noqa: PTH118


def _no_file(path: Path) -> str | None:
    """Return what a path is where reading it would wait, or never end: a FIFO, a socket or a device; else None."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # shows when it is read
        return None
    if stat.S_ISFIFO(mode):
        return FIFO
    if stat.S_ISSOCK(mode):
        return SOCKET
    return DEVICE if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None


def _shortest_paths(folders: Collection[Path]) -> set[Path]:
    """Return one path for each folder, of those that lead to it through links: the shortest."""
    kept: dict[tuple[int, int] | Path, Path] = {}
    for folder in sorted(folders, key=lambda path: (len(path.parts), path)):
        kept.setdefault(_identity(folder) or folder, folder)
    return set(kept.values())


class _Walk:
    """A search of one folder: first without links to folders, then through those, each real folder once."""

    def __init__(
        self, root: Path, suffixes: Collection[str], found: Found, out: Path | None, needs: Mapping[str, str]
    ) -> None:
        self._root, self._suffixes, self._found, self._needs = root, suffixes, found, needs
        self._out = _identity(out) if out else None
        self._files: list[Path] = []
        self._seen: set[tuple[int, int]] = set()
        self._links: list[Path] = []
        self._failed = False

    def run(self) -> None:
        self._enter(self._root)
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                self._enter(link)
        found, root = self._found, self._root
        if not self._files and not self._failed:
            found.problems.append(Problem(root, InputNotFoundError(f"{root}: {self._nothing()}")))
        found.files.extend(FoundFile(file, file.relative_to(root)) for file in sorted(self._files))

    def _nothing(self) -> str:
        """Return why nothing is found: files that need something, or no files at all."""
        needed = [each for each in self._found.left_out if each.reason in self._needs.values()]
        below = [each for each in needed if each.path.is_relative_to(self._root)]
        if below:
            return f"{below[0].path.relative_to(self._root)} {below[0].reason}"
        return f"no files in this folder end in {', '.join(sorted(self._suffixes))}"

    def _enter(self, start: Path) -> None:
        folders = [start]
        while folders:
            folder = folders.pop()
            try:
                status = folder.stat()
                identity = (status.st_dev, status.st_ino)
                if identity in self._seen or (identity == self._out and folder != self._root):
                    self._leave_out(folder, SEEN if identity in self._seen else OUTPUTS)
                    continue
                self._seen.add(identity)
                with os.scandir(folder) as entries:
                    names = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self._failed = True
                reason = f"can't be read ({error.strerror or error})"
                self._leave_out(folder, reason)
                problem = InputNotFoundError(f"{folder}: {reason}; its files are left out")
                self._found.problems.append(Problem(folder, problem))
                continue
            folders += self._sort_out(folder, names)

    def _sort_out(self, folder: Path, entries: Sequence[os.DirEntry[str]]) -> Iterator[Path]:
        """Keep the files of a folder that count, and the links to folders; yield the folders."""
        for entry in entries:
            path = folder / entry.name
            is_folder = _is_folder(entry)
            if is_temporary(path):
                continue
            if entry.name.startswith("."):
                self._leave_out(path, HIDDEN)
            elif is_folder and entry.is_symlink():
                self._links.append(path)
            elif is_folder:
                yield path
            elif path.suffix.lower() in self._suffixes:
                if reason := _no_file(path):
                    self._leave_out(path, reason)
                else:
                    self._files.append(path)
            else:
                self._leave_out(path, self._needs.get(path.suffix.lower(), OTHER_SUFFIX))

    def _leave_out(self, path: Path, reason: str) -> None:
        self._found.left_out.append(LeftOut(path, reason))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """Return one line that counts what is left out, and names the first of it; "" where nothing is."""
    if not left_out:
        return ""
    groups: dict[str, list[str]] = {}
    for each in left_out:
        groups.setdefault(each.reason, []).append(str(each.path))
    return "left out: " + "; ".join(
        f"{len(paths)} ({_reason(reason, paths)}): {_names(paths)}" for reason, paths in groups.items()
    )


def _reason(reason: str, paths: Sequence[str]) -> str:
    if reason != OTHER_SUFFIX:
        return reason
    suffixes = Counter(Path(path).suffix.lower() or "none" for path in paths)
    return f"{reason}: " + ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(_SHOWN))


def _names(paths: Sequence[str]) -> str:
    more = f", and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
