"""Paths of this machine are kept out of pages that go to other people: only the last part of each is shown."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePath

# An absolute path: of POSIX, of Windows with a drive, or of a share. `and/or` and `kbit/s` are none.
_NAME = r"[^\s/\\:'\"<>|,;()]"
_ABSOLUTE = re.compile(rf"(?<![\w./\\<>])(?:[A-Za-z]:[\\/]|\\\\|/)(?:{_NAME}+[\\/]+)*(?={_NAME})")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def last_part(path: str | PurePath) -> str:
    """Return the name of a file or folder without those that it lies in; that of `.` and `..` as well."""
    text = os.fspath(path)
    if _URL.match(text):
        return text
    return PurePath(text).name if PurePath(text).name not in ("", "..") else Path(text).resolve().name or text


class PathFilter:
    """Replaces paths in text by their last parts.

    Args:
        paths: that may stand in the text, however they are written: as given, absolute, or with links resolved. Other
            absolute paths are found where they hold no spaces.
    """

    def __init__(self, paths: Iterable[str | PurePath] = ()) -> None:
        folders: dict[str, str] = {}
        for path in paths:
            for form in (Path(path), Path(path).absolute(), Path(path).resolve()):
                if len(form.parts) > 1:
                    folders[str(form)] = last_part(path)
        for folder in (Path.cwd(), Path(tempfile.gettempdir()), Path.home()):
            if len(folder.parts) > 1:
                folders.setdefault(f"{folder}{os.sep}", "")
        self._folders = sorted(folders.items(), key=lambda item: len(item[0]), reverse=True)

    def __call__(self, text: str) -> str:
        """Return text with the last part of each path only."""
        for folder, name in self._folders:
            text = text.replace(folder, name)
        return _ABSOLUTE.sub("", text)


def paths_in_command(command: str) -> list[str]:
    """Return the arguments of a command line that are paths of this machine."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    values = [word if Path(word).exists() else word.rpartition("=")[2] for word in words]
    return [value for value in values if _is_of_this_machine(value)]


def without_paths_in_command(command: str) -> str:
    """Return a command line with the last part only of each argument that is a path of this machine.

    Model ids such as openai/whisper-medium, and paths below the current folder, stay as they are.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return PathFilter()(command)
    return shlex.join(_short_word(word) for word in words)


def _short_word(word: str) -> str:
    head, sign, value = word.rpartition("=")
    if sign and not Path(word).exists():
        return f"{head}={_short_word(value)}"
    return last_part(word) if _is_of_this_machine(word) else word


def _is_of_this_machine(word: str) -> bool:
    path = PurePath(word)
    return path.is_absolute() or word.startswith("~") or ".." in path.parts
