"""Hugging Face datasets with a column of audio: by their names on the hub, or folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ArgumentError, InputNotFoundError
from .extras import missing_package

HF_PREFIX = "hf:"
# Files that `save_to_disk` writes: of a dataset, and of one with several splits.
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"


def is_saved_dataset(folder: str) -> bool:
    """Return whether a local folder is a dataset that `save_to_disk` wrote."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (SAVED, SAVED_SPLITS))  # noqa: PTH113, PTH118 - Path's methods raise where the name is too long


def open_dataset(name: str, split: str, extra: str, audio_column: str | None = None) -> tuple[Any, str]:
    """Load a dataset, whose audio is not decoded: a value is a dictionary of `bytes` and `path`.

    Args:
        name: NAME or NAME:CONFIG of the hub or of a folder, or a folder of `save_to_disk`, also as a URL.
        split: of the dataset.
        extra: to name where the package datasets is missing.
        audio_column: by default the first column of audio.

    Returns:
        The rows, and the name of the column of audio.

    Raises:
        InputNotFoundError: no such dataset or split, or it holds no audio.
        ArgumentError: no such column of audio.
        MissingDependencyError: without the package datasets.
    """
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise missing_package(error, f"{HF_PREFIX}{name}", extra) from None
    rows = _rows(name, split)
    audio_columns = [column for column, kind in rows.features.items() if isinstance(kind, datasets.Audio)]
    if not audio_columns:
        raise InputNotFoundError(f"{HF_PREFIX}{name}: has no column of audio, only {', '.join(rows.column_names)}")
    if audio_column is not None and audio_column not in audio_columns:
        raise ArgumentError(
            f"{HF_PREFIX}{name}: has no column of audio {audio_column!r}, only {', '.join(audio_columns)}"
        )
    column = audio_column or audio_columns[0]
    # Not decoded: it is read as files are. The decoder of datasets needs another package.
    return rows.cast_column(column, datasets.Audio(decode=False)), column


def _rows(name: str, split: str) -> Any:
    import datasets

    if "://" in name or is_saved_dataset(name):
        return _saved(name, split)
    path, _, config = name.rpartition(":") if ":" in name else (name, "", "")
    if not os.path.exists(path) and ":" not in name and name.startswith((".", "/")):  # noqa: PTH110
        raise InputNotFoundError(f"{HF_PREFIX}{name}: no such folder")
    try:
        with _audio_as_it_is(datasets.Audio):
            return datasets.load_dataset(path, config or None, split=split)
    except Exception as error:
        raise InputNotFoundError(
            f"{HF_PREFIX}{name}: can't be loaded, split {split!r}: {_problem(error, path)}"
        ) from error


def _saved(name: str, split: str) -> Any:
    import datasets

    try:
        found = datasets.load_from_disk(name)
    except Exception as error:
        problem = "it is damaged, or not written by `save_to_disk`; save it again"
        if "://" in name and isinstance(error, (ImportError, ValueError, OSError)):
            problem = "no folder of `save_to_disk` is there, or the file system can't be reached; check the name"
        raise InputNotFoundError(f"{HF_PREFIX}{name}: can't be loaded: {problem}") from error
    if not isinstance(found, datasets.DatasetDict):
        return found
    if split not in found:
        raise InputNotFoundError(
            f"{HF_PREFIX}{name}: can't be loaded, split {split!r}: it has no such split, only {', '.join(found)}; "
            "name another --hf-split"
        )
    return found[split]


@contextmanager
def _audio_as_it_is(column: type[Any]) -> Iterator[None]:
    """Let datasets take files and their bytes into a column of audio as they are.

    Since version 4, its own function for that imports torchcodec, even where there is nothing to encode.
    """
    original = column.encode_example

    def encode_example(self: Any, value: Any) -> Any:
        if isinstance(value, (str, os.PathLike)):
            return {"bytes": None, "path": os.fspath(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and "array" not in value and (value.get("bytes") or value.get("path")):
            return {"bytes": value.get("bytes"), "path": value.get("path")}
        return original(self, value)

    column.encode_example = encode_example
    try:
        yield
    finally:
        column.encode_example = original


def _problem(error: BaseException, path: str) -> str:
    """Return what is wrong with a dataset, and what to do; datasets' own words are in the cause of the error."""
    chain = [each for each in (error, error.__cause__, error.__context__) if each is not None]
    text = " ".join(f"{type(each).__name__} {each}" for each in chain)
    if re.search(r"unknown split|split .* not in|bad split|instruction", text, re.IGNORECASE):
        known = re.search(r"one of (\[[^\]]*\])", text)
        return f"it has no such split{f', only {known[1]}' if known else ''}; name another --hf-split"
    if re.search(r"BuilderConfig|config name|config is missing", text, re.IGNORECASE):
        return "it needs another configuration; name one of its configurations as hf:NAME:CONFIG"
    missing = next((each.name for each in chain if isinstance(each, ImportError)), None)
    if missing:
        return f"it needs {missing}, which is not installed; install it with pip"
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises where the name is too long
        return "this folder is none that the package datasets reads as audio; give a folder of audio without hf:"
    if re.search(r"offline|connect|reach|resolve|resolution|service not known", text, re.IGNORECASE):
        return "it was not fetched before, and the hub can't be reached; go online, or give a folder"
    return "the hub has no such dataset, or it is private; check the name"
