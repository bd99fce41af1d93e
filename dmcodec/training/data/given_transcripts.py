"""Given transcripts, which came with the audio and were not recognised, and their table in a data folder."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dmcodec.errors import ArgumentError, DataError
from dmcodec.transcripts import TextSpan, read_transcripts

from .layout import GIVEN_TRANSCRIPTS
from .storage import arrow, read_table, write_table

if TYPE_CHECKING:
    import pyarrow as pa

GivenTranscripts = dict[str, list[TextSpan]]  # by source, as the table names it


def read_tsv(path: Path) -> GivenTranscripts:
    """Read a table of transcripts (`dmcodec.transcripts`), with single spaces between the words.

    Raises:
        InputNotFoundError: no such table.
        DataError: the table is not well-formed; the line is named.
    """
    transcripts = read_transcripts(path, DataError)
    return {
        source: [dataclasses.replace(span, text=" ".join(span.text.split())) for span in spans]
        for source, spans in transcripts.items()
    }


def match_transcripts(
    transcripts: Mapping[str, list[TextSpan]], sources: Collection[str], table: str | Path
) -> GivenTranscripts:
    """Return the transcripts by the full names of their recordings.

    A table names a recording by its relative path, or that without its suffix; or, where only one recording has it, by
    the file's name, or that without its suffix. Names in other Unicode normal forms, with backslashes or with "./" in
    front count where no recording has the name as it is written. Names of no recording are left out.

    Args:
        transcripts: by the names in the table.
        sources: full names of the recordings.
        table: path of the table, for errors.

    Raises:
        DataError: a name that fits several recordings, or two names for one recording; both are named.
    """
    index = _index(sources)
    found: GivenTranscripts = {}
    names: dict[str, str] = {}
    for name, spans in transcripts.items():
        matching = _matching(name, index)
        if len(matching) > 1:
            raise DataError(
                f"{table}: {name!r} could be {matching[0]} or {matching[1]}; name recordings by their whole path"
            )
        for source in matching:
            if source in names:
                raise DataError(f"{table}: {names[source]!r} and {name!r} are both {source}; keep one of them")
            names[source], found[source] = name, spans
    return found


def _index(sources: Collection[str]) -> list[dict[str, list[str]]]:
    """Return the recordings by each form of a name, the most exact form first."""
    forms: list[dict[str, list[str]]] = [{} for _ in range(8)]
    for source in dict.fromkeys(sources):
        path = PurePosixPath(source)
        names = (source, str(path.with_suffix("")) if path.name else source, path.name, path.stem)
        for number, name in enumerate(names):
            forms[2 * number].setdefault(name, []).append(source)
            forms[2 * number + 1].setdefault(_plain(name), []).append(source)
    return forms


def _matching(name: str, index: Sequence[Mapping[str, list[str]]]) -> list[str]:
    """Return the recordings that a name fits in the most exact of its forms."""
    for number, form in enumerate(index):
        if matching := form.get(_plain(name) if number % 2 else name):
            return matching
    return []


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))


def check_used(transcripts: GivenTranscripts, sources: Sequence[str], path: Path) -> None:
    """Check that a table is of these recordings.

    Raises:
        ArgumentError: no recording has a transcript: the table is of other audio.
        DataError: as `match_transcripts`.
    """
    if not match_transcripts(transcripts, sources, path):
        raise ArgumentError(
            f"{path}: names none of the recordings (it names, for example, {next(iter(transcripts))!r}, and a "
            f"recording is {sources[0]!r}); name the recordings by relative path or file name"
        )


def write_given_transcripts(folder: Path, transcripts: GivenTranscripts) -> None:
    """Write given.parquet; nothing where there are no transcripts."""
    rows = [(source, span.text, span.start_s, span.end_s) for source, spans in transcripts.items() for span in spans]
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        write_table(folder / GIVEN_TRANSCRIPTS, arrow().table(columns, schema=_schema()))


def read_given_transcripts(folder: Path) -> GivenTranscripts:
    """Read given.parquet; empty where there is none."""
    path = folder / GIVEN_TRANSCRIPTS
    if not path.exists():
        return {}
    transcripts: GivenTranscripts = {}
    for row in read_table(path, _schema()).to_pylist():
        transcripts.setdefault(row["source"], []).append(TextSpan(row["text"], row["start_s"], row["end_s"]))
    return transcripts


def _schema() -> pa.Schema:
    pa = arrow()
    columns = [("source", pa.string()), ("text", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64())]
    return pa.schema(columns)
