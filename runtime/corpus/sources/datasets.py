"""Hugging Face datasets with a column of audio: a clip for each row. The audio is not read here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dmcodec.errors import InputNotFoundError
from dmcodec.hugging_face import HF_PREFIX, open_dataset
from dmcodec.row_names import audio_paths, row_names
from dmcodec.runtime.corpus.items import Item, TableRow
from dmcodec.runtime.corpus.tables import BYTES, DatasetName
from dmcodec.text import utf8

from .columns import ID, free_names, passed_columns, row_ids, seconds, split_rows

_ROWS = 4096  # that are listed at a time


class DatasetSource:
    """The clips of a dataset of the package `datasets`.

    The id of a clip is that of its row, where the dataset has a column `id`; else the path of its audio, with the
    row's number where several rows have the same.

    Args:
        name: as for `dmcodec.hugging_face.open_dataset`, with the prefix `hf:` or without it.
        split: of the dataset.
        audio_column: by default the first one.
    """

    def __init__(self, name: str, split: str = "train", audio_column: str | None = None) -> None:
        name = name.removeprefix(HF_PREFIX)
        # Workers may run in other folders.
        folder = os.path.isdir(name)  # noqa: PTH112 - Path.is_dir raises where the name is too long
        self._name = DatasetName(str(Path(name).absolute()) if folder else name, split)
        self._audio_column = audio_column

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        dataset, column = open_dataset(self._name.name, self._name.split, "datasets", self._audio_column)
        if not len(dataset):
            raise InputNotFoundError(f"{HF_PREFIX}{self._name.name}: split {self._name.split!r} has no rows")
        passed = passed_columns(dataset.features.arrow_schema, column)
        name = f"{HF_PREFIX}{self._name.name}"
        ids = row_ids(name, dataset[ID]) if ID in passed else list(map(utf8, row_names(audio_paths(dataset, column))))
        rest = [each for each in passed if each != ID]
        table = dataset.select_columns(rest) if rest else None
        for start in range(0, len(dataset), _ROWS):
            stop = min(start + _ROWS, len(dataset))
            values = split_rows(table[start:stop]) if table is not None else iter([{}] * (stop - start))
            sizes = _sizes(dataset, column, start, stop)
            for row, size_bytes, columns in zip(range(start, stop), sizes, values, strict=True):
                yield Item(
                    ids[row], TableRow(str(self._name), row, column), columns=free_names(columns),
                    state=dataset._fingerprint, size_bytes=size_bytes, audio_s=seconds(columns),
                )  # fmt: skip


def _sizes(dataset: Any, column: str, start: int, stop: int) -> Sequence[int]:
    """Return the bytes of the audio of rows, without reading it; 0 where only its path is stored."""
    import pyarrow.compute as pc

    if getattr(dataset, "_indices", None) is not None:  # rows in another order than they are stored in
        return [0] * (stop - start)
    stored = dataset.data.table.column(column).slice(start, stop - start)
    lengths = pc.binary_length(pc.struct_field(stored, BYTES))
    return [int(length or 0) for length in lengths.to_pylist()]
