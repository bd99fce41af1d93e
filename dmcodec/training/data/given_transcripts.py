"""Given transcripts, which came with the audio and were not recognised, and their table in a data folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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


def find_transcript(transcripts: Mapping[str, list[TextSpan]], source: str) -> list[TextSpan] | None:
    """Return the text of a source, which tables name by relative path, file name, or either without the suffix."""
    path = PurePosixPath(source)
    for name in (source, path.name, path.with_suffix("").as_posix(), path.stem):
        if name in transcripts:
            return transcripts[name]
    return None


def check_used(transcripts: GivenTranscripts, sources: Sequence[str], path: Path) -> None:
    """Raise ArgumentError where no source has a transcript: the table is of other audio."""
    if not any(find_transcript(transcripts, source) for source in sources):
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
