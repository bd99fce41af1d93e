"""Tables of transcripts: tab-separated files that hold the text of recordings, or of parts of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import DmcodecError, InputNotFoundError
from .text import utf8
from .text_files import decode_text

COLUMNS = ("file", "start_s", "end_s", "text")


@dataclass(frozen=True)
class TextSpan:
    """Text of a whole recording (no times), or of an interval of it, in seconds from its start."""

    text: str
    start_s: float | None = None
    end_s: float | None = None


def read_transcripts(
    path: Path, error: type[DmcodecError], name_of: Callable[[str], str] = str
) -> dict[str, list[TextSpan]]:
    r"""Read a table of transcripts.

    Columns without a header: `file, text` or `file, start_s, end_s, text`. With a header line these names may stand in
    any order among others. A file may have several lines with times (sentences, or single words), or one without. A
    text in the last column may hold tabs.

    Args:
        path: UTF-8 text, lines of columns separated by tabs.
        error: class of the errors in the table.
        name_of: returns the key of a file in the result; by default the file as written.

    Returns:
        The spans of each file, in the order of the lines.

    Raises:
        InputNotFoundError: no such table.
        DmcodecError: of class `error`; the line is named.
    """
    lines = _lines(path, error)
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise error(f"{path}: holds no transcripts")
    layout = _layout(path, *rows[0], error)
    transcripts: dict[str, list[TextSpan]] = {}
    for number, row in rows[layout.has_header :]:
        file, span = _parse(f"{path}: line {number}", layout, row, error)
        name = name_of(file)
        if name in transcripts and span.start_s is None:
            raise error(f"{path}: line {number} names {name} a second time")
        transcripts.setdefault(name, []).append(span)
    return transcripts


def _lines(path: Path, error: type[DmcodecError]) -> list[str]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such file of transcripts") from None
    except OSError as failure:
        raise InputNotFoundError(f"{path}: can't be read ({failure.strerror or failure})") from None
    try:
        return decode_text(data).splitlines()
    except UnicodeDecodeError as failure:
        lines = data.decode("utf-8-sig", "surrogateescape").splitlines()
        # The names of files may hold any bytes, texts may not.
        if b"\0" not in data and not any(map(_has_other_bytes, lines)):
            return [utf8(line) for line in lines]
        raise error(f"{path}: can't be read as UTF-8 text ({failure.reason}, byte {failure.start})") from None


def _has_other_bytes(line: str) -> bool:
    """Return whether a line holds bytes that are no UTF-8 after its first column."""
    return any("\udc80" <= character <= "\udcff" for character in line.partition("\t")[2])


@dataclass(frozen=True)
class _Layout:
    """Positions of the columns by name, how many columns there are, and whether the first line is a header."""

    columns: dict[str, int]
    width: int
    has_header: bool = False

    @property
    def text_is_last(self) -> bool:
        return self.columns["text"] == self.width - 1


def _layout(path: Path, number: int, row: list[str], error: type[DmcodecError]) -> _Layout:
    if {"file", "text"} <= set(row):
        return _Layout({name: index for index, name in enumerate(row) if name in COLUMNS}, len(row), has_header=True)
    if len(row) == 2:
        return _Layout({"file": 0, "text": 1}, 2)
    if len(row) == len(COLUMNS):
        return _Layout({name: index for index, name in enumerate(COLUMNS)}, len(COLUMNS))
    found = "no tab" if len(row) == 1 else f"{len(row)} columns"
    raise error(
        f"{path}: line {number} has {found}; without a header, transcripts have 2 columns (file, text) or 4 "
        f"({', '.join(COLUMNS)}), separated by tabs"
    )


def _parse(where: str, layout: _Layout, row: list[str], error: type[DmcodecError]) -> tuple[str, TextSpan]:
    columns = layout.columns
    if len(row) <= max(columns.values()):
        found = "no tab" if len(row) == 1 else f"only {len(row)} columns"
        raise error(f"{where} has {found}; separate the columns by tabs")
    file = row[columns["file"]].strip()
    end = None if layout.text_is_last else columns["text"] + 1
    text = "\t".join(row[columns["text"] : end]).strip()
    if not {"start_s", "end_s"} <= set(columns):
        return file, TextSpan(text)
    try:
        start_s, end_s = float(row[columns["start_s"]]), float(row[columns["end_s"]])
    except ValueError:
        raise error(f"{where}: start and end must be seconds") from None
    if not (math.isfinite(end_s) and 0 <= start_s <= end_s):
        raise error(f"{where}: {start_s} s to {end_s} s is no interval of time")
    return file, TextSpan(text, start_s, end_s)
