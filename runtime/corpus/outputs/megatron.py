"""Shards for Megatron: `.bin` and `.idx` of flattened ids, a document for each clip; the clips; and their layout.

Sequence i of a shard is the clip of line i of its `.clips.jsonl`. Its `.layout.json` is the `TokenLayout` that maps ids
to codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmcodec.errors import DataError
from dmcodec.layouts import TokenLayout

from .clip_facts import clip_facts, json_line
from .indexed import IndexedWriter, ids_dtype, read_indexed
from .writer import Contents, OutputFormat, Row, WriterSettings

SUFFIXES = (".bin", ".idx", ".clips.jsonl", ".layout.json")


def flat_layout(settings: WriterSettings) -> TokenLayout:
    """Return the layout of an output: the one that was given, else frame by frame with level offsets.

    Raises:
        ArgumentError: it is none of flat ids, or of another codec.
    """
    return TokenLayout(
        codebook_size=settings.codebook_size,
        n_q=settings.n_q,
        sample_rate=settings.sample_rate,
        hop_length=settings.hop_length,
        model_id=settings.model_id,
    )


class _MegatronWriter:
    def __init__(self, settings: WriterSettings, paths: Sequence[Path]) -> None:
        self._settings, self._layout = settings, flat_layout(settings)
        ids, self._index, clips, layout = paths
        layout.write_bytes(json_line(self._layout.to_dict()))
        self._ids = ids.open("wb")
        self._clips = clips.open("wb")
        self._writer = IndexedWriter(self._ids, ids_dtype(self._layout.vocab_size))

    def write(self, row: Row) -> None:
        self._writer.write(self._layout.ids(row.codes))
        self._clips.write(json_line(clip_facts(row, self._settings)))

    def close(self) -> None:
        self._ids.close()
        self._clips.close()
        self._index.write_bytes(self._writer.index())

    def abort(self) -> None:
        for file in (self._ids, self._clips):
            try:
                file.close()
            except OSError:  # the disk is full
                continue


def _check(settings: WriterSettings, paths: Sequence[Path]) -> Contents:
    """Read all ids back, and map them to codes."""
    layout = flat_layout(settings)
    ids, index, lines, _ = paths
    clips = codes = 0
    for sequence in read_indexed(ids, index):
        if len(sequence) and int(sequence.max()) >= layout.vocab_size:
            raise DataError(f"{ids}: holds ids outside its vocabulary; check the disk")
        clips += 1
        codes += layout.codes(np.asarray(sequence)).size
    with lines.open("rb") as file:
        named = sum(1 for _ in file)
    if named != clips:
        raise DataError(f"{lines}: has {named} lines for {clips} clips; check the disk")
    return Contents(clips, codes)


MEGATRON = OutputFormat("megatron", SUFFIXES, _MegatronWriter, _check)
