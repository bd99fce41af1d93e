"""Columns of tables that are passed through: which ones, and their values as scalars."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dmcodec.errors import DataError
from dmcodec.runtime.corpus.columns import RESERVED
from dmcodec.runtime.corpus.items import Scalar
from dmcodec.text import utf8

if TYPE_CHECKING:
    import pyarrow as pa

ID = "id"
# What tells the length of a clip in seconds, where a table has it.
_SECONDS = ("duration_s", "duration")
_SOURCE = "source_"


def passed_columns(schema: pa.Schema, audio_column: str) -> list[str]:
    """Return the columns of a table that have a scalar in each row, the id included, in the order of the table."""
    import pyarrow.types as kinds

    def is_scalar(kind: pa.DataType) -> bool:
        if kinds.is_dictionary(kind):
            return is_scalar(kind.value_type)
        return not (kinds.is_nested(kind) or is_binary(kind))

    return [field.name for field in schema if field.name != audio_column and is_scalar(field.type)]


def is_binary(kind: pa.DataType) -> bool:
    """Return whether values of a type are bytes."""
    import pyarrow.types as kinds

    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind))


def scalar(value: Any) -> Scalar:
    """Return a value as it is passed through: times and decimals as text, lists and mappings as JSON."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    return json.dumps(value, default=str, ensure_ascii=False)


def split_rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Scalar]]:
    """Yield the values of each row of a table that is given by columns."""
    names = list(columns)
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(names, map(scalar, values), strict=True))


def row_ids(name: str, values: Sequence[Any]) -> list[str]:
    """Return the ids of rows as text.

    Raises:
        DataError: a row of the table `name` has none.
    """
    for row, value in enumerate(values):
        if value is None or value == "":
            raise DataError(f"{name}: row {row} has no id; fill the column {ID!r}, or rename it")
    return [utf8(str(value)) for value in values]


def free_names(values: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return passed-through values, of which those with the name of an output get `source_` before it."""
    return {f"{_SOURCE}{name}" if name in RESERVED else name: value for name, value in values.items()}


def seconds(values: Mapping[str, Scalar]) -> float | None:
    """Return the length of a clip that a row tells, for the plan only; None where it tells none."""
    for name in _SECONDS:
        value = values.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e7:
            return float(value)
    return None
