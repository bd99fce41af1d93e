"""Shards as folders of token files, one for each clip, and a list of them: `clips.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dmcodec.errors import OutputError
from dmcodec.token_file import Header, token_file_writer
from dmcodec.tokens import Tokens

from .clip_facts import clip_facts, json_line
from .names import clip_name
from .writer import Contents, OutputFormat, Row, WriterSettings

LIST, SUFFIX = "clips.jsonl", ".dmc"


class _DmcWriter:
    def __init__(self, settings: WriterSettings, paths: Sequence[Path]) -> None:
        self._settings, self._folder = settings, paths[0]
        self._list = (self._folder / LIST).open("wb")

    def write(self, row: Row) -> None:
        settings, name = self._settings, clip_name(row.id) + SUFFIX
        header = Header(
            row.codes.shape[0], row.first_level, settings.codebook_size, settings.hop_length, row.sample_rate,
            row.num_samples, settings.model_id,
        )  # fmt: skip
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("xb")
        except FileExistsError:
            raise OutputError(
                f"{row.id}: the file system takes its file {name} for that of another clip, whose name differs in "
                "capitals only; use another --format"
            ) from None
        with file, token_file_writer(file, header) as writer:
            writer.write(row.codes)
            writer.finish(row.num_samples)
        self._list.write(json_line({"file": name, **clip_facts(row, settings)}))

    def close(self) -> None:
        self._list.close()

    def abort(self) -> None:
        try:
            self._list.close()
        except OSError:  # the disk is full
            return


def _check(_settings: WriterSettings, paths: Sequence[Path]) -> Contents:
    """Read all token files back; they have checksums."""
    clips = codes = 0
    for path in sorted(paths[0].rglob(f"*{SUFFIX}")):
        clips += 1
        codes += Tokens.load(path).codes.size
    return Contents(clips, codes)


DMC = OutputFormat("dmc", ("",), _DmcWriter, _check)
