"""Clips of a corpus: where their audio lies, and what is known of them before it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from dmcodec.streams import AudioSource

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class FileLocation:
    """An audio file. `path`: an absolute path, or a URL that fsspec opens."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class TarMember:
    """A member of a tar file, which starts at byte `offset` of the file `path` and has `size` bytes."""

    path: str
    member: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.path}#{self.member}"


@dataclass(frozen=True)
class TableRow:
    """The audio in a row of a table. `path`: a Parquet file, or a Hugging Face dataset with the prefix `hf:`."""

    path: str
    row: int
    column: str

    def __str__(self) -> str:
        return f"{self.path}#{self.row}"


Location = FileLocation | TarMember | TableRow
_KINDS: Mapping[str, type[Any]] = {"file": FileLocation, "tar": TarMember, "row": TableRow}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class Item:
    """One clip to tokenize.

    Attributes:
        id: the key of the clip in the output; unique in the corpus. No path of the machine unless the user gave it.
        location: of its audio.
        start_s: where the clip begins in the audio, in seconds; None for its begin.
        duration_s: length of the clip in seconds; None for all that follows `start_s`.
        channel: to take, from 0 on; None averages all.
        columns: passed through to the output: one value of the same type, or None, in all items of the corpus.
        state: text that changes when the source changes (size and modification time of its file); "" if unknown.
        size_bytes: of the audio as it is stored; 0 if unknown.
        audio_s: length of the clip in seconds, as far as it is known without reading the audio; None if unknown. It
            serves to make shards of equal work, and need not be exact.
    """

    id: str
    location: Location
    start_s: float | None = None
    duration_s: float | None = None
    channel: int | None = None
    columns: Mapping[str, Scalar] = field(default_factory=dict)
    state: str = ""
    size_bytes: int = 0
    audio_s: float | None = None

    @property
    def source(self) -> str:
        """The name of the source in messages: a path, a URL, or `PATH#MEMBER` in a container."""
        return str(self.location)

    @property
    def is_part(self) -> bool:
        """Whether the clip is cut out of its audio."""
        return self.start_s is not None or self.duration_s is not None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without those that are unknown."""
        values: dict[str, Any] = {"id": self.id, "kind": _NAMES[type(self.location)], "at": asdict(self.location)}
        for name in ("start_s", "duration_s", "channel", "state", "size_bytes", "audio_s"):
            if getattr(self, name) not in (None, "") and not (name == "size_bytes" and self.size_bytes == 0):
                values[name] = getattr(self, name)
        if self.columns:
            values["columns"] = dict(self.columns)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Item:
        """Return the item of `to_json`; KeyError or TypeError for other values."""
        rest = {name: value for name, value in values.items() if name not in ("kind", "at")}
        return cls(location=_KINDS[values["kind"]](**values["at"]), **rest)


class Source(Protocol):
    """What an argument of `dmcodec tokenize` names: lists clips, without reading their audio.

    A source is listed again when a run goes on, to find out whether the corpus changed; so the order and all values
    follow from the input alone.
    """

    def items(self) -> Iterator[Item]:
        """Yield the clips in a fixed order.

        Raises:
            InputNotFoundError: the input does not exist or can't be read.
            DataError: a manifest or a table that is not well-formed; the line or the column is named.
        """


class Reader(Protocol):
    """Opens the audio of one kind of location. Made once for each shard; called in several threads."""

    def opened(self, location: Any) -> AbstractContextManager[AudioSource]:
        """Return a context manager with what `dmcodec.audio` reads: a path, or a binary file object that can seek.

        Raises:
            AudioError: the audio can't be opened; the location is named.
        """

    def state(self, location: Any) -> str:
        """Return the state of the source now, as in `Item.state`.

        Raises:
            OSError: the source is gone, or can't be read.
        """

    def close(self) -> None:
        """Release open files."""
