"""The state arena: the LSTM states of all streams of a pool in a few tables, one row for each state.

A batch gathers the rows that it reads and scatters the rows that it writes. The tables are allocated once and never
move, and streams hold row numbers only, so a backend that keeps them on its device needs another `Table`, no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import GraphSpec, TensorSpec

BATCH = "batch"  # the name of the batch axis in the manifest


class Table:
    """Rows of one state in host memory, along the batch axis. Several threads may read, write and free rows.

    Args:
        spec: of the state; its batch axis becomes the axis of the rows.
        capacity: number of rows.
    """

    def __init__(self, spec: TensorSpec, capacity: int) -> None:
        self._axis = spec.axes.index(BATCH)
        shape = [capacity if axis == BATCH else int(axis) for axis in spec.axes]
        self._values = np.zeros(shape, spec.dtype)
        self._free = deque(range(capacity))

    def gather(self, rows: Sequence[int]) -> NDArray[Any]:
        """Return a copy of rows as one batch."""
        return self._values.take(rows, axis=self._axis)

    def scatter(self, batch: NDArray[Any]) -> list[Row | NDArray[Any]]:
        """Keep a batch in rows that are free; return them. What finds no room is returned as an array."""
        items = np.moveaxis(batch, self._axis, 0)
        rows = [self._taken() for _ in items]
        stored = [index for index, row in enumerate(rows) if row is not None]
        np.moveaxis(self._values, self._axis, 0)[[row.number for row in rows if row is not None]] = items[stored]
        return [batch.take([index], axis=self._axis) if row is None else row for index, row in enumerate(rows)]

    def free(self, number: int) -> None:
        """Free a row."""
        self._free.append(number)

    def _taken(self) -> Row | None:
        try:
            return Row(self, self._free.popleft())
        except IndexError:
            return None


class Row:
    """A state that lies in a table. It is never changed; its row is freed when nothing refers to it any more."""

    __slots__ = ("number", "table")

    def __init__(self, table: Table, number: int) -> None:
        self.table, self.number = table, number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.table.gather([self.number]).astype(dtype, copy=False)

    def __del__(self) -> None:
        self.table.free(self.number)


class StateArena:
    """The tables of the states of all graphs, each made when it is first needed.

    A state is an input of a graph whose new value is an output of the same graph, named `new_` and its name.

    Args:
        graphs: of the bundle.
        capacity: rows of a table. States beyond it are kept as arrays of their own, so that nothing fails.
    """

    def __init__(self, graphs: Mapping[str, GraphSpec], capacity: int) -> None:
        self._capacity = capacity
        self._specs = {
            (name, tensor.name): tensor
            for name, graph in graphs.items()
            for tensor in graph.inputs
            if BATCH in tensor.axes and any(output.name == f"new_{tensor.name}" for output in graph.outputs)
        }
        self._tables: dict[tuple[str, str], Table] = {}

    def is_state(self, graph: str, name: str) -> bool:
        """Return whether an input of a graph, or an output with `new_` before its name, is a state."""
        return (graph, name.removeprefix("new_")) in self._specs

    def gather(self, graph: str, name: str, values: Sequence[Any]) -> NDArray[Any]:
        """Return states, rows of the arena or arrays, as one batch for the input `name` of a graph."""
        table = self._table(graph, name)
        if all(isinstance(value, Row) and value.table is table for value in values):
            return table.gather([value.number for value in values])
        axis = self._specs[graph, name].axes.index(BATCH)
        return np.concatenate([np.asarray(value) for value in values], axis=axis)

    def scatter(self, graph: str, output: str, batch: NDArray[Any]) -> list[Row | NDArray[Any]]:
        """Keep the output of a graph; return the state of each item of the batch."""
        return self._table(graph, output.removeprefix("new_")).scatter(batch)

    def _table(self, graph: str, name: str) -> Table:
        key = (graph, name)
        if key not in self._tables:
            self._tables.setdefault(key, Table(self._specs[key], self._capacity))
        return self._tables[key]
