"""Recordings, from files or from a Hugging Face dataset."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .audio import Waveform, audio_needs, audio_suffixes, read_blocks
from .errors import ArgumentError, AudioError, InputNotFoundError
from .file_search import FoundFile, LeftOut, Problem, search
from .hugging_face import HF_PREFIX, open_dataset
from .row_names import audio_paths, row_names
from .text import utf8


@dataclass(frozen=True)
class Source:
    """One recording.

    Attributes:
        name: relative path, or name of the row; the key of the recording in splits and transcripts.
        speaker: "" if it is unknown.
        text: transcript, if it comes with the audio.
        read: called with a rate in Hz, yields mono float32 blocks (samples,) at that rate.
    """

    name: str
    speaker: str
    text: str | None
    read: Callable[[int], Iterator[Waveform]]


@dataclass(frozen=True)
class Sources:
    """Recordings in a fixed order.

    Attributes:
        count: number of recordings.
        identity: changes when they change (names, speakers, sizes, modification times).
        get: returns the recording of an index.
        left_out: what of the named folders does not count.
    """

    count: int
    identity: str
    get: Callable[[int], Source]
    left_out: Sequence[LeftOut] = field(default=())


@dataclass(frozen=True)
class DatasetOptions:
    """Split and columns of a Hugging Face dataset."""

    split: str = "train"
    speaker_column: str | None = None
    text_column: str | None = None


def find_sources(inputs: Sequence[str], speaker_from: str | None, dataset: DatasetOptions) -> Sources:
    """Find the recordings that the arguments of `train prepare` name.

    Args:
        inputs: files, folders and glob patterns; or one `hf:NAME[:CONFIG]`.
        speaker_from: "parent" (folder of the file), "top" (first folder below the common root), or "regex:PATTERN",
            whose first group, searched in the file's relative path, is the speaker.
        dataset: for `hf:`.

    Raises:
        InputNotFoundError: no input exists and holds audio. One of several is a recording that can't be read.
        ArgumentError: options that do not fit the inputs.
        MissingDependencyError: `hf:` without the package datasets.
    """
    if any(each.startswith(HF_PREFIX) for each in inputs):
        if len(inputs) > 1:
            raise ArgumentError(f"{HF_PREFIX}NAME must be alone; prepare each dataset into its own folder")
        if speaker_from:
            raise ArgumentError("a dataset's speakers come from --speaker-column, not --speaker-from")
        return _dataset_sources(inputs[0].removeprefix(HF_PREFIX), dataset)
    if dataset.speaker_column or dataset.text_column:
        raise ArgumentError(f"--speaker-column and --text-column are for {HF_PREFIX}NAME; files have --speaker-from")
    return _file_sources(inputs, speaker_from)


@dataclass(frozen=True)
class NamedFiles:
    """Local audio files, sorted by path.

    Attributes:
        files: absolute path, and name: the path from the common folder of the arguments on.
        problems: arguments that name nothing, and folders that can't be read.
        left_out: what of the named folders does not count.
    """

    files: Sequence[tuple[Path, str]]
    problems: Sequence[Problem]
    left_out: Sequence[LeftOut]


def named_files(inputs: Sequence[str], keep_missing: bool = False) -> NamedFiles:
    """Find the local audio files that arguments name; they may be none.

    Args:
        inputs: files, folders and glob patterns.
        keep_missing: whether links in folders that lead nowhere are among the files, and not among the problems.
    """
    found = search(inputs, audio_suffixes(), needs=audio_needs())
    arguments = set(map(Path, inputs))
    gone = [each for each in _missing(found.files) if not keep_missing or each.path in arguments]
    problems = [*found.problems, *gone]
    missing = {problem.path for problem in problems}
    files = [(file.path.absolute(), file.relative) for file in found.files if file.path not in missing]
    if not files:
        return NamedFiles([], problems, found.left_out)
    # Folders that the names of their files are relative to.
    root = Path(os.path.commonpath({path.parents[len(relative.parts) - 1] for path, relative in files}))
    paths = sorted({path for path, _ in files})
    return NamedFiles([(path, utf8(path.relative_to(root).as_posix())) for path in paths], problems, found.left_out)


def _file_sources(inputs: Sequence[str], speaker_from: str | None) -> Sources:
    found = named_files(inputs)
    problems = found.problems
    if not found.files:
        raise problems[0].error
    paths, names = [path for path, _ in found.files], [name for _, name in found.files]
    speaker = _speaker_rule(speaker_from)
    speakers = [speaker(name) for name in names]
    digest = hashlib.sha256()
    for path, name, speaker_name in zip(paths, names, speakers, strict=True):
        digest.update(f"{name}\0{speaker_name}\0{_state(path)}\n".encode())
    for problem in problems:
        digest.update(f"{utf8(problem.path)}\0missing\n".encode())

    def get(index: int) -> Source:
        if index < len(paths):
            return Source(names[index], speakers[index], None, lambda rate: read_blocks(paths[index], rate))
        return _unreadable(problems[index - len(paths)])

    return Sources(len(paths) + len(problems), digest.hexdigest(), get, found.left_out)


def _missing(files: Sequence[FoundFile]) -> Iterator[Problem]:
    for file in files:
        if not os.path.isfile(file.path):  # noqa: PTH113 - Path.is_file raises where the name is too long
            yield Problem(file.path, InputNotFoundError(f"{file.path}: no such file or folder"))


def _state(path: Path) -> str:
    """Return what changes when a file changes."""
    try:
        status = path.stat()
    except OSError:
        return "unreadable"
    return f"{status.st_size}\0{status.st_mtime_ns}"


def _unreadable(problem: Problem) -> Source:
    def read(_rate: int) -> Iterator[Waveform]:
        raise AudioError(str(problem.error))

    return Source(utf8(problem.path), "", None, read)


def _speaker_rule(speaker_from: str | None) -> Callable[[str], str]:
    """Return a function that maps the relative path of a file to its speaker."""
    if speaker_from is None:
        return lambda _name: ""
    if speaker_from == "parent":
        return lambda name: Path(name).parent.name
    if speaker_from == "top":
        return lambda name: Path(name).parts[0] if "/" in name else ""
    if not speaker_from.startswith("regex:"):
        raise ArgumentError(f"--speaker-from {speaker_from!r} is not known; use parent, top or regex:PATTERN")
    try:
        pattern = re.compile(speaker_from.removeprefix("regex:"))
    except re.error as error:
        raise ArgumentError(f"--speaker-from {speaker_from!r}: not a regular expression ({error})") from None
    if pattern.groups < 1:
        raise ArgumentError(f"--speaker-from {speaker_from!r}: has no group; write it as in regex:^([^/]+)/")

    def speaker(name: str) -> str:
        match = pattern.search(name)
        if match is None or match.group(1) is None:
            raise ArgumentError(f"--speaker-from {speaker_from!r}: doesn't match {name}")
        return match.group(1)

    return speaker


def _dataset_sources(name: str, options: DatasetOptions) -> Sources:
    rows, audio_column = _load_dataset(name, options)
    names = row_names(audio_paths(rows, audio_column))

    def get(index: int) -> Source:
        row = rows[index]
        audio = row[audio_column] or {}
        title = names[index]
        speaker = str(row[options.speaker_column]) if options.speaker_column else ""
        text = row[options.text_column] if options.text_column else None
        return Source(title, speaker, None if text is None else str(text), lambda rate: _read_row(audio, title, rate))

    return Sources(len(rows), f"{name} {options} {rows._fingerprint}", get)


def _load_dataset(name: str, options: DatasetOptions) -> tuple[Any, str]:
    rows, audio_column = open_dataset(name, options.split, "train")
    for column in filter(None, (options.speaker_column, options.text_column)):
        if column not in rows.column_names:
            raise ArgumentError(f"{HF_PREFIX}{name}: has no column {column!r}, only {', '.join(rows.column_names)}")
    return rows, audio_column


def _read_row(audio: dict[str, Any], title: str, rate: int) -> Iterator[Waveform]:
    if audio.get("bytes") is None:
        path = audio.get("path")
        if not path:
            raise AudioError(f"{title}: the row holds no audio")
        yield from read_blocks(path, rate, name=title)
        return
    yield from read_blocks(io.BytesIO(audio["bytes"]), rate, name=title)
