"""Shards for Megatron: `.bin` and `.idx` of flattened ids, a document for each clip; the clips; and their layout.

Sequence i of a shard is the clip of line i of its `.clips.jsonl`. Its `.layout.json` is the `TokenLayout` that maps ids
to codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from dmcodec.errors import ArgumentError, DataError
from dmcodec.layouts import TokenLayout

from .clip_facts import clip_facts, json_line
from .indexed import IndexedWriter, ids_dtype, read_indexed
from .writer import Contents, OutputFormat, Row, WriterSettings

SUFFIXES = (".bin", ".idx", ".clips.jsonl", ".layout.json")


PATTERNS = ("frame", "level", "semantic")


class _CodecFacts(Protocol):
    @property
    def model_id(self) -> str: ...
    @property
    def codebook_size(self) -> int: ...
    @property
    def n_q(self) -> int: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def hop_length(self) -> int: ...


def chosen_layout(layout: str | None, codec: _CodecFacts) -> dict[str, Any]:
    """Return the layout of an output as JSON values, with the id of its model.

    Args:
        layout: "frame" (None), "level" or "semantic", without special ids; or a file of `TokenLayout.save`.
        codec: whose codes it is for.

    Raises:
        ArgumentError: the file holds a layout of parallel levels, or of another codec.
        InputNotFoundError, TokensError: there is no such file, or it holds no layout.
    """
    names = ("codebook_size", "sample_rate", "hop_length")
    facts: dict[str, Any] = {name: getattr(codec, name) for name in names}
    if layout is None or layout in PATTERNS:
        pattern = layout or PATTERNS[0]
        n_q = 1 if pattern == "semantic" else codec.n_q
        return TokenLayout(pattern=pattern, n_q=n_q, model_id=codec.model_id, **facts).to_dict()
    found = TokenLayout.load(layout)
    if found.parallel:
        raise ArgumentError(
            f"--layout {layout}: has parallel levels; Megatron's format takes flat ids, of another pattern"
        )
    facts |= {"first_level": 0} | ({} if found.pattern == "semantic" else {"n_q": codec.n_q})
    for name, value in facts.items():
        if getattr(found, name) != value:
            raise ArgumentError(f"--layout {layout}: has {name} {getattr(found, name)}, but the output has {value}")
    if found.model_id not in ("", codec.model_id):
        raise ArgumentError(f"--layout {layout}: is of model {found.model_id}, but the output of {codec.model_id}")
    return replace(found, model_id=codec.model_id).to_dict()


def _layout(settings: WriterSettings) -> TokenLayout:
    return TokenLayout.from_dict(settings.layout or chosen_layout(None, settings))


class _MegatronWriter:
    def __init__(self, settings: WriterSettings, paths: Sequence[Path]) -> None:
        self._settings, self._layout = settings, _layout(settings)
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
    layout = _layout(settings)
    ids, index, lines, _ = paths
    clips = codes = 0
    for sequence in read_indexed(ids, index):
        if len(sequence) and int(sequence.max()) >= layout.vocab_size:
            raise DataError(f"{ids}: holds ids outside its vocabulary; check the disk")
        clips += 1
        codes += layout.codes(sequence).shape[1] * settings.n_q
    with lines.open("rb") as file:
        named = sum(1 for _ in file)
    if named != clips:
        raise DataError(f"{lines}: has {named} lines for {clips} clips; check the disk")
    return Contents(clips, codes)


MEGATRON = OutputFormat("megatron", SUFFIXES, _MegatronWriter, _check)
