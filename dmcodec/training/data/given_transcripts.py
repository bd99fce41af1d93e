"""Transcripts that came with the audio: of whole recordings, or of stretches of them."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dmcodec.errors import ArgumentError, DataError, InputNotFoundError

from .layout import arrow, read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

GIVEN = "given.parquet"
HEADER = ("file", "start_s", "end_s", "text")


@dataclass(frozen=True)
class Given:
    """Text of a whole recording (no times), or of a stretch of it, in seconds from its start."""

    text: str
    start_s: float | None = None
    end_s: float | None = None


def read_tsv(path: Path) -> dict[str, list[Given]]:
    """Reads transcripts from a table with tabs between its columns.

    Columns without a header: `file, text` or `file, start_s, end_s, text`; with a header line these names may stand
    in any order among others. A file may have several lines with times: sentences, or single words.

    Raises:
        InputNotFoundError: no such table.
        DataError: a line that doesn't fit, with its number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such file of transcripts") from None
    except OSError as error:
        raise InputNotFoundError(f"{path}: can't be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: isn't UTF-8 text ({error.reason}, byte {error.start})") from None
    rows = list(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = [row for row in rows if row]
    if not rows:
        raise DataError(f"{path}: holds no transcripts")
    names, first = _columns(path, rows[0])
    given: dict[str, list[Given]] = {}
    for number, row in enumerate(rows[first:], first + 1):
        file, piece = _parse(path, number, names, row)
        given.setdefault(file, []).append(piece)
    return given


def _columns(path: Path, row: list[str]) -> tuple[dict[str, int], int]:
    """Names of the columns, and how many lines the header takes."""
    if {"file", "text"} <= set(row):
        return {name: index for index, name in enumerate(row) if name in HEADER}, 1
    if len(row) == 2:
        return {"file": 0, "text": 1}, 0
    if len(row) == 4:
        return dict(zip(HEADER, range(4), strict=True)), 0
    raise DataError(
        f"{path}: line 1 has {len(row)} columns; without a header, transcripts have 2 (file, text) or 4 "
        f"({', '.join(HEADER)}), separated by tabs"
    )


def _parse(path: Path, number: int, names: dict[str, int], row: list[str]) -> tuple[str, Given]:
    if len(row) <= max(names.values()):
        raise DataError(f"{path}: line {number} has only {len(row)} columns")
    text = " ".join(row[names["text"]].split())
    if not {"start_s", "end_s"} <= set(names):
        return row[names["file"]], Given(text)
    try:
        start_s, end_s = float(row[names["start_s"]]), float(row[names["end_s"]])
    except ValueError:
        raise DataError(f"{path}: line {number}: start and end must be seconds") from None
    if not (math.isfinite(end_s) and 0 <= start_s <= end_s):
        raise DataError(f"{path}: line {number}: from {start_s} s to {end_s} s is no stretch of time")
    return row[names["file"]], Given(text, start_s, end_s)


def find(given: dict[str, list[Given]], source: str) -> list[Given] | None:
    """The pieces of a source, which tables name by relative path, file name, or either without suffix."""
    path = PurePosixPath(source)
    for name in (source, path.name, path.with_suffix("").as_posix(), path.stem):
        if name in given:
            return given[name]
    return None


def _schema() -> pa.Schema:
    pa = arrow()
    columns = [("source", pa.string()), ("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
    return pa.schema(columns)


def write_given(folder: Path, given: dict[str, list[Given]]) -> None:
    """Writes given.parquet; nothing where nothing is given."""
    rows = [(source, piece.text, piece.start_s, piece.end_s) for source, pieces in given.items() for piece in pieces]
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        write_table(folder / GIVEN, arrow().table(columns, schema=_schema()))


def read_given(folder: Path) -> dict[str, list[Given]]:
    """Reads given.parquet; empty where there is none."""
    if not (folder / GIVEN).exists():
        return {}
    given: dict[str, list[Given]] = {}
    for row in read_table(folder / GIVEN, _schema()).to_pylist():
        given.setdefault(row["source"], []).append(Given(row["text"], row["start_s"], row["end_s"]))
    return given


def check_used(given: dict[str, list[Given]], sources: list[str], path: Path) -> None:
    """Raises ArgumentError where no source has a transcript: the table is of other audio."""
    if not any(find(given, source) for source in sources):
        raise ArgumentError(
            f"{path}: names none of the recordings; its first is {next(iter(given))!r}, theirs {sources[0]!r}"
        )
