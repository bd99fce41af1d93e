"""Names of a dataset's rows: the whole path of a row's audio, with the row's number where several have the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any


def row_names(paths: Sequence[str | None]) -> list[str]:
    """Return a different name for each row.

    Args:
        paths: of the rows' audio. Absolute ones depend on the machine: they are named from their common folder on.
    """
    known = [path for path in paths if path]
    absolute = bool(known) and all(PurePath(path).is_absolute() for path in known)
    root = os.path.commonpath([os.path.dirname(path) for path in known]) if absolute else None  # noqa: PTH120 - many
    names = [_name(path, root) for path in paths]
    counts = Counter(names)
    taken = set(counts)
    return [_numbered(name, index, taken) if not name or counts[name] > 1 else name for index, name in enumerate(names)]


def _name(path: str | None, root: str | None) -> str:
    if not path:
        return ""
    return PurePath(os.path.relpath(path, root)).as_posix() if root else path


def _numbered(name: str, index: int, taken: set[str]) -> str:
    """Return a name with the row's number, which no other row has."""
    found = f"{name}#{index:09d}" if name else f"row{index:09d}"
    while found in taken:
        found += "_"
    taken.add(found)
    return found


def audio_paths(rows: Any, column: str) -> list[str | None]:
    """Return the paths in a column of audio, without reading the audio.

    Args:
        rows: a dataset of the package datasets, or any sequence of rows.
        column: whose values are dictionaries with a path.
    """
    table, indices = getattr(rows, "data", None), getattr(rows, "_indices", None)
    if table is None:
        return [(row[column] or {}).get("path") for row in rows]
    paths = [path for chunk in table.column(column).chunks for path in chunk.field("path").to_pylist()]
    return paths if indices is None else [paths[index] for index in indices.column(0).to_pylist()]
