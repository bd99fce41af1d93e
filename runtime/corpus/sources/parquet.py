"""Parquet files with a column of audio: a clip for each row. The audio is not read here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dmcodec.errors import ArgumentError, DmcodecError, InputNotFoundError, detail, first_line
from dmcodec.extras import missing_package
from dmcodec.row_names import row_names
from dmcodec.runtime.corpus.items import Item, Scalar, TableRow
from dmcodec.runtime.corpus.remote_files import file_state
from dmcodec.runtime.corpus.tables import BYTES, PATH, opened_parquet
from dmcodec.text import utf8

from .columns import ID, free_names, is_binary, passed_columns, row_ids, seconds, split_rows

if TYPE_CHECKING:
    import pyarrow as pa

AUDIO = "audio"
_ROWS = 4096  # that are listed at a time


class ParquetSource:
    """The clips of a Parquet file.

    The id of a clip is that of its row, where the table has a column `id`; else the path that is stored with its
    audio; else the file's name and the row's number.

    Args:
        path: of the file: a path, or a URL.
        name: of the file in ids.
        audio_column: by default the only column of audio, or the one called `audio`.
    """

    def __init__(self, path: str, name: str, audio_column: str | None = None) -> None:
        self._path, self._name, self._audio_column = path, name, audio_column

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        try:
            import pyarrow as pa
        except ModuleNotFoundError as error:
            raise missing_package(error, self._path, "corpus") from None
        try:
            state = file_state(self._path)[0]
            with opened_parquet(self._path) as file:
                yield from self._items(file, state)
        except DmcodecError:
            raise
        except FileNotFoundError:
            raise InputNotFoundError(f"{self._path}: no such Parquet file") from None
        except pa.ArrowException as error:
            raise InputNotFoundError(f"{self._path}: can't be read as a Parquet file ({first_line(error)})") from None
        except OSError as error:
            raise InputNotFoundError(f"{self._path}: can't be read ({detail(error)})") from None

    def _items(self, file: Any, state: str) -> Iterator[Item]:
        column = audio_column(self._path, file.schema_arrow, self._audio_column)
        passed = passed_columns(file.schema_arrow, column)
        ids = row_ids(self._path, _column(file, ID)) if ID in passed else self._stored_names(file, column)
        rest = [name for name in passed if name != ID]
        rows = zip(ids, _sizes(file, column), _rows(file, rest), strict=True)
        for row, (item_id, size_bytes, values) in enumerate(rows):
            yield Item(
                item_id, TableRow(self._path, row, column), columns=free_names(values), state=state,
                size_bytes=size_bytes, audio_s=seconds(values),
            )  # fmt: skip
        if not ids:
            raise InputNotFoundError(f"{self._path}: has no rows")

    def _stored_names(self, file: Any, column: str) -> list[str]:
        """Return ids made of the paths that are stored with the audio; a row without one has the file's name."""
        kind = file.schema_arrow.field(column).type
        has_path = hasattr(kind, "fields") and PATH in [field.name for field in kind]
        paths = _column(file, f"{column}.{PATH}", column) if has_path else [None] * file.metadata.num_rows
        named = row_names([each["path"] if isinstance(each, dict) else each for each in paths])
        return [utf8(name) if path else f"{self._name}/{name}" for name, path in zip(named, paths, strict=True)]


def audio_column(path: str, schema: pa.Schema, wanted: str | None) -> str:
    """Return the name of the column of audio of a table: a struct with the field `bytes`, or binary values.

    Raises:
        ArgumentError: there is none, or it is not clear which.
    """
    import pyarrow.types as kinds

    structs = [field.name for field in schema if kinds.is_struct(field.type) and _has_bytes(field.type)]
    binary = [field.name for field in schema if is_binary(field.type)]
    if wanted is not None:
        if wanted in structs + binary:
            return wanted
        raise ArgumentError(f"{path}: has no column of audio {wanted!r}, only {', '.join(structs + binary) or 'none'}")
    for found in (structs, binary):
        if len(found) == 1 or AUDIO in found:
            return AUDIO if AUDIO in found else found[0]
        if found:
            raise ArgumentError(
                f"{path}: has several columns of audio; name one with --audio-column: {', '.join(found)}"
            )
    raise ArgumentError(
        f"{path}: has no column of audio (a struct with the field bytes, or binary values), only "
        f"{', '.join(schema.names)}"
    )


def _has_bytes(kind: pa.DataType) -> bool:
    return any(field.name == BYTES and is_binary(field.type) for field in kind)


def _column(file: Any, leaf: str, column: str | None = None) -> list[Any]:
    """Return the values of a column, or of a leaf of it, whose other leaves are not read."""
    values: list[Any] = []
    for batch in file.iter_batches(_ROWS, columns=[leaf]):
        found = batch.column(0).to_pylist()
        values += found if column is None else [None if each is None else each[PATH] for each in found]
    return values


def _rows(file: Any, names: list[str]) -> Iterator[dict[str, Scalar]]:
    if not names:
        yield from ({} for _ in range(file.metadata.num_rows))
        return
    for batch in file.iter_batches(_ROWS, columns=names):
        yield from split_rows({name: batch.column(name).to_pylist() for name in names})


def _sizes(file: Any, column: str) -> Iterator[int]:
    """Yield the bytes of each row's audio: the mean of its row group, since the audio is not read."""
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        chunks = (group.column(index) for index in range(group.num_columns))
        size = sum(each.total_compressed_size for each in chunks if each.path_in_schema.split(".")[0] == column)
        yield from [size // max(1, group.num_rows)] * group.num_rows
