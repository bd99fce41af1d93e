"""Columns that are passed through: their types, found over all clips, and values of these types."""

from __future__ import annotations

from dmcodec.errors import DataError

from .items import Item, Scalar

# Columns of the output, which no column of a manifest may have the name of.
RESERVED = frozenset({"id", "num_samples", "duration_s", "first_level", "n_q", "codes"})


class ColumnTypes:
    """Finds the type of each column: that of all its values, or one that holds them all."""

    def __init__(self) -> None:
        self._types: dict[str, str | None] = {}  # None: no value yet

    def add(self, item: Item) -> None:
        """Take note of the columns of a clip.

        Raises:
            DataError: a column has the name of a column of the output.
        """
        for name, value in item.columns.items():
            if name not in self._types and name in RESERVED:
                raise DataError(f"{item.source}: the column {name!r} has the name of an output; rename it")
            self._types[name] = _common(self._types.get(name), _type_of(value))

    def result(self) -> dict[str, str]:
        """Return name -> type, in the order in which the names came."""
        return {name: kind or "string" for name, kind in self._types.items()}


def _type_of(value: Scalar) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else "string"
    return "double" if isinstance(value, float) else "string"


def _common(first: str | None, second: str | None) -> str | None:
    if first is None or second is None or first == second:
        return first or second
    return "double" if {first, second} == {"int64", "double"} else "string"


def converted(value: Scalar, kind: str) -> Scalar:
    """Return a value in the type of its column."""
    if value is None:
        return None
    if kind == "double":
        return float(value)
    return str(value) if kind == "string" else value
