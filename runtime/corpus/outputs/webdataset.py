"""Shards as WebDataset tars: for each clip KEY.npy, its codes (n_q, frames) uint16, and KEY.json, all else."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmcodec.errors import DataError

from .clip_facts import clip_facts, json_line, model_facts
from .names import clip_name
from .tar import TarWriter
from .writer import Contents, OutputFormat, Row, WriterSettings


class _WebDatasetWriter:
    def __init__(self, settings: WriterSettings, paths: Sequence[Path]) -> None:
        self._settings = settings
        self._file = paths[0].open("wb")
        self._tar = TarWriter(self._file)

    def write(self, row: Row) -> None:
        name = clip_name(row.id)
        codes = io.BytesIO()
        np.lib.format.write_array(codes, np.ascontiguousarray(row.codes, "<u2"), version=(1, 0), allow_pickle=False)
        self._tar.add(f"{name}.npy", codes.getvalue())
        self._tar.add(f"{name}.json", json_line({**clip_facts(row, self._settings), **model_facts(self._settings)}))

    def close(self) -> None:
        self._tar.close()
        self._file.close()

    def abort(self) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full
            return


def _check(settings: WriterSettings, paths: Sequence[Path]) -> Contents:
    """Read all members back."""
    clips = codes = 0
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with tarfile.open(paths[0], "r:") as tar:
            for member in tar:
                name, _, suffix = member.name.rpartition(".")
                file = tar.extractfile(member)
                assert file is not None
                if suffix == "npy":
                    shapes = {name: np.load(io.BytesIO(file.read()), allow_pickle=False).shape}
                else:
                    facts = json.loads(file.read())
                    n_q, frames = shapes[name]
                    same = (n_q, frames) == (facts["n_q"], -(-facts["num_samples"] // settings.hop_length))
                    clips += same
                    codes += n_q * frames
    except (tarfile.TarError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{paths[0]}: can't be read back; check the disk") from error
    return Contents(clips, codes)


WEBDATASET = OutputFormat("webdataset", (".tar",), _WebDatasetWriter, _check)
