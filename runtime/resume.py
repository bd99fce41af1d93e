"""The record of an encode that can go on after an interruption: a folder beside the output with spool and position."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from dmcodec import __version__
from dmcodec.errors import ArgumentError, AudioError, AudioFileNotFoundError, DmcodecError, OutputError
from dmcodec.files import locked, make_folder, write_bytes
from dmcodec.streams import source_name

from .backend import Backend
from .spool import Spool
from .sweeps import Position, Sizes

SUFFIX = ".spool"
SAVE_EVERY_S = 30.0
_RECORD, _LOCK = "progress.npz", "lock"
_WORDS = {
    "source": "the audio file",
    "size_bytes": "the size of the audio file",
    "mtime_ns": "the time when the audio file was changed",
    "model_id": "the model",
    "sizes": "the sizes of tiles and blocks",
    "backend": "the backend, or its version",
    "dmcodec": "the version of dmcodec",
}


@contextmanager
def resumable(source: Any, out: Any, model_id: str, backend: Backend, **settings: Any) -> Iterator[Record]:
    """Yield the record of the encode of one file; see `Record.open`.

    Args:
        source: path of the audio file.
        out: path of the output.
        model_id, backend: of the codec.
        settings: what else the codes depend on, as JSON values.

    Raises:
        ArgumentError: source or output is not the path of a file, which a second run can find again.
        AudioError: the audio file is missing or can't be read.
        OutputError: as `Record.open`.
    """
    if not isinstance(source, (str, os.PathLike)) or (os.path.exists(source) and not os.path.isfile(source)):  # noqa: PTH110, PTH113
        raise ArgumentError(
            f"{source_name(source)}: resume (--resume) needs an audio file that a second run can read again"
        )
    if not isinstance(out, (str, os.PathLike)):
        raise ArgumentError("resume needs out, the path of a token file: a folder beside it keeps the progress")
    values = {
        **_facts(source),
        "model_id": model_id,
        "sizes": [Sizes().tile, Sizes().block],
        "backend": f"{backend.name} {backend.version} {backend.provider}",
        "dmcodec": __version__,
        **settings,
    }
    with Record.open(Path(out), values) as record:
        yield record


def _facts(source: str | os.PathLike[str]) -> dict[str, Any]:
    if not os.path.isfile(source):  # noqa: PTH113 - Path.is_file raises where the name is too long
        raise AudioFileNotFoundError(f"{source}: no such audio file")
    try:
        status = Path(source).stat()
    except OSError as error:
        raise AudioError(f"{source}: can't be read ({error.strerror or error})") from None
    return {
        "source": os.path.abspath(source),  # noqa: PTH100 - Path keeps `..`
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


class Record:
    """Position and spool of one encode in a folder; made by `open`."""

    def __init__(self, folder: Path, values: Mapping[str, Any]) -> None:
        self.folder, self._values = folder, dict(values)
        self.position = Position()
        self._spool: Spool | None = None
        self._saved_at, self._saved = time.monotonic(), self.position
        self._removed = False

    @classmethod
    @contextmanager
    def open(cls, out: Path, values: Mapping[str, Any]) -> Iterator[Record]:
        """Yield the record of the output `out`, in the folder `out` + SUFFIX, which is made if it is missing.

        After the block the folder is removed. After an interruption or an error it stays, with the position; but not
        after an error of the audio file, which a second run would find again.

        Raises:
            OutputError: the folder can't be written to, another process uses it, or it holds the progress of an
                encode of which something was different.
        """
        folder = out.with_name(f"{out.name}{SUFFIX}")
        make_folder(folder)
        record = cls(folder, values)
        try:
            with locked(folder / _LOCK, wait=False):
                record._load()
                with record._kept_or_removed():
                    yield record
        finally:
            if record._removed and os.name == "nt":  # there the lock can't be removed while it is open
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _kept_or_removed(self) -> Iterator[None]:
        keep = False
        try:
            yield
        except AudioError:
            raise
        except BaseException:
            self._save_at_stop()
            keep = any(each.name != _LOCK for each in self.folder.iterdir())  # nothing to go on from, else
            raise
        finally:
            if self._spool is not None:
                self._spool.close()
            if not keep:
                self._removed = True
                shutil.rmtree(self.folder, ignore_errors=True)

    def spool(self, expected_bytes: int, bytes_per_s: int) -> Spool:
        """Return the spool in the folder."""
        self._spool = Spool(self.folder, expected_bytes, bytes_per_s, kept=True)
        return self._spool

    def reach(self, position: Position) -> None:
        """Take note of a position; save it where the last save is some time ago, and at each new stage.

        Inputs of a stage are freed when the next one has begun, so its position must be saved by then.
        """
        self.position = position
        if position.stage != self._saved.stage or time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self._save()

    def _save_at_stop(self) -> None:
        with contextlib.suppress(DmcodecError, OSError):
            self._save()

    def _save(self) -> None:
        """Write the position, after what it counts as done is on the disk."""
        if self._spool is None or self.position is self._saved:
            return
        self._spool.sync()
        arrays: dict[str, Any] = {
            f"{way}_{name}": array
            for way, state in self.position.states.items()
            for name, array in zip(("hidden", "cell"), state, strict=True)
        }
        files = {path.name: path.stat().st_size for path in self.folder.glob("*.f32")}
        place = {"stage": self.position.stage, "done": self.position.done, "files": files}
        text = json.dumps({**self._values, **place})
        file = io.BytesIO()
        np.savez(file, text=np.array(text), **arrays)
        write_bytes(self.folder / _RECORD, file.getvalue())
        self._saved, self._saved_at = self.position, time.monotonic()

    def _load(self) -> None:
        path = self.folder / _RECORD
        if not path.is_file():
            return
        try:
            with np.load(path, allow_pickle=False) as file:
                values = json.loads(str(file["text"]))
                names = {name.rpartition("_")[0] for name in file.files if name != "text"}
                states = {name: (file[f"{name}_hidden"], file[f"{name}_cell"]) for name in names}
                position, sizes = Position(values.pop("stage"), values.pop("done"), states), values.pop("files")
        except (OSError, ValueError, KeyError, AttributeError, EOFError, BadZipFile) as error:
            raise OutputError(f"{path}: can't be read ({error}); remove the folder to encode from the start") from None
        if different := [name for name in {**values, **self._values} if values.get(name) != self._values.get(name)]:
            what = ", ".join(_WORDS.get(name, name) for name in different)
            raise OutputError(
                f"{self.folder}: holds the progress of another encode ({what} differs); "
                "remove the folder to encode from the start"
            )
        for name, size in sizes.items():
            part = self.folder / name
            if _is_needed(name, position.stage) and not (part.is_file() and part.stat().st_size >= size):
                raise OutputError(f"{part}: was cut or removed; remove the folder to encode from the start")
        self.position = self._saved = position


def _is_needed(name: str, stage: int) -> bool:
    """Return whether a stage reads or goes on with a file of the spool; those of earlier layers are freed by then."""
    layer = name.split("_")[1:2]
    return not layer or int(layer[0]) >= stage - 2
