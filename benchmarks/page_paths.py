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
_ABSOLUTE = re.compile(rf"(?<![\w./\\:>])(?:[A-Za-z]:[\\/]|\\\\|/)(?:{_NAME}+[\\/]+)*(?={_NAME})")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def last_part(path: str | PurePath) -> str:
    """Return the name of a file or folder without those that it lies in; that of `.` and `..` as well."""
    text = os.fspath(path)
    if _URL.match(text):
        return text
    return PurePath(text).name if PurePath(text).name not in ("", "..") else Path(text).resolve().name or text


def without_paths(text: str, paths: Iterable[str | PurePath] = ()) -> str:
    """Return text with the last part of each path only.

    Args:
        text: of a remark, an error or a result.
        paths: that may stand in it, however they are written: as given, absolute, or with links resolved. Other
            absolute paths are found where they hold no spaces.
    """
    folders: dict[str, str] = {}
    for path in paths:
        name = last_part(path)
        for form in (Path(path), Path(path).absolute(), Path(path).resolve()):
            if len(form.parts) > 1:
                folders[str(form)] = name
    for folder in (Path.cwd(), Path(tempfile.gettempdir()), Path.home()):
        if len(folder.parts) > 1:
            folders.setdefault(f"{folder}{os.sep}", "")
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, folders[folder])
    return _ABSOLUTE.sub("", text)


def without_paths_in_command(command: str) -> str:
    """Return a command line with the last part only of each argument that is a path of this machine.

    Model ids such as openai/whisper-medium, and paths below the current folder, stay as they are.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return without_paths(command)
    return shlex.join(_short_word(word) for word in words)


def _short_word(word: str) -> str:
    head, sign, value = word.rpartition("=")
    if sign and not Path(word).exists():
        return f"{head}={_short_word(value)}"
    path = PurePath(word)
    if path.is_absolute() or word.startswith("~") or ".." in path.parts:
        return last_part(path)
    return word
