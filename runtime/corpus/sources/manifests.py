"""Manifests: tables with a row for each clip, tab-separated with a header line, or an object of JSON in each line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dmcodec.errors import DataError
from dmcodec.runtime.corpus.items import Item, Scalar
from dmcodec.text import utf8

from .text import file_item, named_beside, numbered_lines

# Columns with a meaning; all others are passed through.
ID, PATH, START, DURATION, CHANNEL = "id", "path", "start", "duration", "channel"
KNOWN = (ID, PATH, START, DURATION, CHANNEL)
# Names that other toolkits give to these columns.
ALIASES: Mapping[str, str] = {"audio_filepath": PATH, "offset": START}


class TsvSource:
    """A tab-separated table; the first line has the names of the columns. All values are text; an empty one is None."""

    def __init__(self, path: str) -> None:
        self._path = path

    def items(self) -> Iterator[Item]:
        """See `dmcodec.runtime.corpus.items.Source`."""
        lines = numbered_lines(self._path)
        number, header = next(lines, (1, ""))
        names = [name.strip() for name in header.split("\t")]
        where = f"{self._path}: line {number}"
        if not {ALIASES.get(name, name) for name in names} & {PATH}:
            raise DataError(f"{where}: has no column {PATH!r}; the first line of a TSV file names its columns")
        if "" in names or len(set(names)) < len(names):
            raise DataError(f"{where}: two columns have one name, or a column has none")
        for number, line in lines:
            where = f"{self._path}: line {number}"
            values = line.split("\t")
            if len(values) != len(names):
                raise DataError(f"{where}: has {len(values)} columns, but the first line has {len(names)}")
            yield manifest_item(
                self._path, where, {name: value.strip() or None for name, value in zip(names, values, strict=True)}
            )


class JsonLinesSource:
    """A file with an object of JSON in each line. A list or an object in a column is passed through as JSON text."""

    def __init__(self, path: str) -> None:
        self._path = path

    def items(self) -> Iterator[Item]:
        """See `dmcodec.runtime.corpus.items.Source`."""
        for number, line in numbered_lines(self._path):
            where = f"{self._path}: line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise DataError(f"{where}: is no JSON; each line of a .jsonl file is an object") from None
            if not isinstance(row, dict):
                raise DataError(f'{where}: is no JSON object; write it as {{"path": ...}}')
            yield manifest_item(self._path, where, row)


def manifest_item(table: str, where: str, row: Mapping[str, Any]) -> Item:
    """Return the clip of a row.

    Args:
        table: path or URL of the manifest, beside which relative paths lie.
        where: the place of the row, for messages.
        row: column -> value.

    Raises:
        DataError: a value is missing, or of a wrong kind.
    """
    known = _known(where, row)
    name = known.get(PATH)
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: has no {PATH!r}, or it is no text")
    start, duration = _seconds(where, known, START), _seconds(where, known, DURATION)
    if duration == 0:
        raise DataError(f"{where}: {DURATION} must be more than 0 seconds")
    item = file_item(named_beside(table, name), _id(where, known, name))
    columns = {utf8(key): _scalar(value) for key, value in row.items() if ALIASES.get(key, key) not in KNOWN}
    return replace(
        item, start_s=start, duration_s=duration, channel=_channel(where, known), columns=columns, audio_s=duration
    )


def _known(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in row.items():
        name = ALIASES.get(key, key)
        if name in KNOWN:
            if name in known:
                raise DataError(f"{where}: has both {key!r} and {name!r}, which mean the same; leave one out")
            known[name] = value
    return known


def _id(where: str, known: Mapping[str, Any], name: str) -> str:
    """Return the id of a row; by default the path as written, and the part of it where only that is the clip."""
    key = known.get(ID)
    if key is None:
        part = [f"{each}={known[each]}" for each in (START, DURATION, CHANNEL) if known.get(each) is not None]
        return utf8(name) + ("#" + ",".join(part) if part else "")
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        raise DataError(f"{where}: {ID} must be text or a whole number, not {key!r}")
    return utf8(str(key))


def _seconds(where: str, known: Mapping[str, Any], name: str) -> float | None:
    value = known.get(name)
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise DataError(f"{where}: {name} must be a number of seconds from 0 on, not {value!r}")
    return seconds


def _channel(where: str, known: Mapping[str, Any]) -> int | None:
    value = known.get(CHANNEL)
    if value is None:
        return None
    text = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise DataError(f"{where}: {CHANNEL} must be a whole number from 0 on, not {value!r}")
    return int(text)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, str):
        return utf8(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return json.dumps(value, ensure_ascii=True, sort_keys=True)
