"""Audio in the rows of tables: Parquet files and Hugging Face datasets. Each row is read when it is needed."""

from __future__ import annotations

import io
import os
import posixpath
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePath
from typing import Any

from dmcodec.errors import AudioError, detail, first_line
from dmcodec.hugging_face import HF_PREFIX, open_dataset
from dmcodec.streams import AudioSource

from .filesystems import file_system, is_url
from .items import TableRow
from .remote_files import file_state, opened_url, refuse_special

BYTES, PATH = "bytes", "path"
# Rows are read by blocks of about so many bytes; so many are kept, since clips that run together lie beside each other.
_BLOCK_BYTES, _KEPT_BYTES = 32 << 20, 256 << 20
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class DatasetName:
    """Name and split of a Hugging Face dataset, as one text in a location: `hf:NAME@SPLIT`."""

    name: str
    split: str

    def __str__(self) -> str:
        return f"{HF_PREFIX}{self.name}@{self.split}"

    @classmethod
    def parse(cls, text: str) -> DatasetName:
        """Return the name of `str`."""
        name, _, split = text.removeprefix(HF_PREFIX).rpartition("@")
        return cls(name, split)


@contextmanager
def opened_parquet(path: str) -> Iterator[Any]:
    """Open a Parquet file, local or remote, so that its parts are read when they are needed."""
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        if is_url(path):
            system, inside = file_system(path)
            opened = stack.enter_context(system.open(inside, "rb"))
        else:
            opened = stack.enter_context(open(path, "rb"))
        yield stack.enter_context(pq.ParquetFile(opened, buffer_size=_BUFFER_BYTES, pre_buffer=False))


@dataclass
class _Group:
    """A row group that is read from front to back, by blocks. `size`: rows of a block."""

    first: int
    rows: int
    size: int
    blocks: Iterator[Any] = field(default_factory=lambda: iter(()))
    next: int = 0  # block of `blocks`


class _ParquetAudio:
    """The audio column of an open Parquet file. Calls of several threads run one after the other."""

    def __init__(self, file: Any, column: str) -> None:
        self._file, self._column = file, column
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], Any] = OrderedDict()  # blocks, the one that was used last at the end
        self._groups: list[_Group] = []
        first = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            chunks = [group.column(index) for index in range(group.num_columns)]
            size = sum(each.total_uncompressed_size for each in chunks if each.path_in_schema.split(".")[0] == column)
            rows = max(1, group.num_rows * _BLOCK_BYTES // max(1, size))
            self._groups.append(_Group(first, group.num_rows, min(rows, max(1, group.num_rows))))
            first += group.num_rows

    def value(self, row: int) -> Any:
        """Return the value of a row: a dictionary, bytes or None. IndexError where there is no such row."""
        with self._lock:
            for number, group in enumerate(self._groups):
                if group.first <= row < group.first + group.rows:
                    block, offset = divmod(row - group.first, group.size)
                    return self._block(number, block)[offset].as_py()
        raise IndexError(row)

    def _block(self, number: int, block: int) -> Any:
        found = self._kept.pop((number, block), None)
        if found is None:
            found = self._read(number, block)
        self._kept[number, block] = found
        while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return found

    def _read(self, number: int, block: int) -> Any:
        group = self._groups[number]
        if block < group.next or not group.next:
            group.blocks = self._file.iter_batches(group.size, row_groups=[number], columns=[self._column])
            group.next = 0
        batch = next(islice(group.blocks, block - group.next, None))
        group.next = block + 1
        return batch.column(0)


class TableReader:
    """Opens the audio of rows; see `dmcodec.runtime.corpus.items.Reader`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._tables: dict[tuple[str, str], _ParquetAudio] = {}
        self._datasets: dict[tuple[str, str], Any] = {}
        self._states: dict[str, str] = {}

    @contextmanager
    def opened(self, location: TableRow) -> Iterator[AudioSource]:
        """See `Reader`."""
        value = self._value(location)
        data, path = (value.get(BYTES), value.get(PATH)) if isinstance(value, dict) else (value, None)
        if data is not None:
            yield io.BytesIO(data)
        elif not path:
            raise AudioError(f"{location}: the row holds no audio")
        else:
            path = _beside(location.path, path)
            if is_url(path):
                with opened_url(path) as file:
                    yield file
            else:
                refuse_special(path)
                yield path

    def state(self, location: TableRow) -> str:
        """See `Reader`."""
        with self._lock:
            if location.path not in self._states:
                is_dataset = location.path.startswith(HF_PREFIX)
                found = self._dataset(location)._fingerprint if is_dataset else file_state(location.path)[0]
                self._states[location.path] = found
            return self._states[location.path]

    def close(self) -> None:
        """See `Reader`."""
        self._stack.close()

    def _value(self, location: TableRow) -> Any:
        try:
            if location.path.startswith(HF_PREFIX):
                with self._lock:
                    dataset = self._dataset(location)
                return dataset[location.row][location.column]
            return self._table(location).value(location.row)
        except (OSError, IndexError, KeyError, StopIteration) as error:
            raise AudioError(f"{location}: can't be read ({detail(error)}); make the table again") from None
        except Exception as error:
            if not type(error).__module__.startswith("pyarrow"):
                raise
            raise AudioError(f"{location}: can't be read ({first_line(error)}); make the table again") from None

    def _dataset(self, location: TableRow) -> Any:
        key = location.path, location.column
        if key not in self._datasets:
            name = DatasetName.parse(location.path)
            self._datasets[key], _ = open_dataset(name.name, name.split, "datasets", location.column)
        return self._datasets[key]

    def _table(self, location: TableRow) -> _ParquetAudio:
        with self._lock:
            key = location.path, location.column
            if key not in self._tables:
                file = self._stack.enter_context(opened_parquet(location.path))
                self._tables[key] = _ParquetAudio(file, location.column)
            return self._tables[key]


def _beside(table: str, path: str) -> str:
    """Return where the audio of a row lies; relative paths begin in the folder of a Parquet file."""
    if is_url(path) or PurePath(path).is_absolute() or table.startswith(HF_PREFIX):
        return path
    if is_url(table):
        return posixpath.join(posixpath.dirname(table), path)
    return os.path.join(os.path.dirname(table), path)  # noqa: PTH118, PTH120 - as long names as the system takes
