"""Shards as Parquet files: a row for each clip, with its codes as lists, one a level, or packed as in a token file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmcodec.errors import DataError
from dmcodec.token_file import pack_codes, packed_bytes

from .writer import Contents, OutputFormat, Row, WriterSettings

if TYPE_CHECKING:
    import pyarrow as pa

# A row group holds about so many codes, or one clip: it bounds the memory of who writes and who reads.
ROW_GROUP_CODES = 4_000_000
METADATA = b"dmcodec"


def shard_schema(settings: WriterSettings) -> pa.Schema:
    """Return the schema of a shard; its metadata has model and settings as JSON under the key `dmcodec`."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
    codes = pa.binary() if settings.codes == "packed" else pa.list_(pa.list_(pa.uint16()))
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("num_samples", pa.int64(), nullable=False),
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("first_level", pa.int32(), nullable=False),
        pa.field("n_q", pa.int32(), nullable=False),
        pa.field("codes", codes, nullable=False),
        *(pa.field(name, types[kind]) for name, kind in settings.columns.items()),
    ]
    facts = {name: value for name, value in asdict(settings).items() if name not in ("columns", "layout")}
    return pa.schema(fields, metadata={METADATA: json.dumps(facts, sort_keys=True).encode()})


class _ParquetWriter:
    def __init__(self, settings: WriterSettings, paths: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        self._settings, self._schema = settings, shard_schema(settings)
        self._rows: list[Row] = []
        self._codes = 0
        self._writer = pq.ParquetWriter(
            paths[0], self._schema, compression="zstd", compression_level=3, write_page_checksum=True
        )

    def write(self, row: Row) -> None:
        self._rows.append(row)
        self._codes += row.codes.size
        if self._codes >= ROW_GROUP_CODES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def abort(self) -> None:
        try:
            self._writer.close()
        except OSError:  # the disk is full
            return

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._table(), row_group_size=len(self._rows))
        self._rows, self._codes = [], 0

    def _table(self) -> pa.Table:
        import pyarrow as pa

        rows, schema = self._rows, self._schema
        columns: list[Any] = [
            [row.id for row in rows],
            [row.num_samples for row in rows],
            [row.num_samples / row.sample_rate for row in rows],
            [row.first_level for row in rows],
            [row.codes.shape[0] for row in rows],
            self._code_array(),
            *([row.columns.get(name) for row in rows] for name in self._settings.columns),
        ]
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _code_array(self) -> pa.Array:
        import pyarrow as pa

        if self._settings.codes == "packed":
            packed = [pack_codes(row.codes, self._settings.codebook_size) for row in self._rows]
            return pa.array(packed, pa.binary())
        levels = [row.codes.shape[0] for row in self._rows]
        frames = [row.codes.shape[1] for row in self._rows]
        values = np.concatenate([row.codes.reshape(-1) for row in self._rows])
        inner = pa.ListArray.from_arrays(_offsets(np.repeat(frames, levels)), pa.array(values, pa.uint16()))
        return pa.ListArray.from_arrays(_offsets(np.array(levels)), inner)


def _offsets(lengths: Any) -> pa.Array:
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())


def _check(settings: WriterSettings, paths: Sequence[Path]) -> Contents:
    """Read all row groups back; pages have checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    clips = codes = 0
    try:
        with pq.ParquetFile(paths[0], page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                clips += len(table)
                codes += _count_codes(table, settings)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{paths[0]}: can't be read back; check the disk") from error
    return Contents(clips, codes)


def _count_codes(table: pa.Table, settings: WriterSettings) -> int:
    column = table.column("codes")
    if settings.codes == "lists":
        return sum(len(chunk.flatten().flatten()) for chunk in column.chunks)
    count = 0
    for n_q, num_samples, packed in zip(
        table.column("n_q").to_pylist(), table.column("num_samples").to_pylist(), column, strict=True
    ):
        frames = -(-num_samples // settings.hop_length)
        if len(packed.as_buffer()) == packed_bytes(n_q, frames, settings.codebook_size):
            count += n_q * frames
    return count


PARQUET = OutputFormat("parquet", (".parquet",), _ParquetWriter, _check, needs=("pyarrow",))
