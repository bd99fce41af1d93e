"""What a format of the output is: writers of shards, and the check of what they wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dmcodec.codes import Codes
from dmcodec.runtime.corpus.items import Scalar

# Types of passed-through columns, by their names in plan.json.
COLUMN_TYPES = ("string", "int64", "double", "bool")


@dataclass(frozen=True)
class Row:
    """The tokens of one clip.

    Attributes:
        id: of the clip.
        codes: (n_q, frames) uint16.
        num_samples: true length at `sample_rate`.
        sample_rate: of the codec, in Hz.
        first_level: quantizer level of codes[0].
        columns: passed through: a value or None for each column of `WriterSettings.columns`.
    """

    id: str
    codes: Codes
    num_samples: int
    sample_rate: int
    first_level: int
    columns: Mapping[str, Scalar]


@dataclass(frozen=True)
class WriterSettings:
    """What is the same for all shards of an output.

    Attributes:
        model_id: 16 hex digits that identify the weights.
        precision: of the bundle.
        sample_rate, hop_length, codebook_size: of the codec.
        n_q: levels of the codes.
        columns: name -> type (of COLUMN_TYPES) of the passed-through columns, in their order.
        codes: "lists" or "packed": how the Parquet format stores codes.
        layout: of flattened ids, as JSON values of a `TokenLayout`; None for formats that hold codes.
    """

    model_id: str
    precision: str
    sample_rate: int
    hop_length: int
    codebook_size: int
    n_q: int
    columns: Mapping[str, str]
    codes: str = "lists"
    layout: Mapping[str, Any] | None = None


class ShardWriter(Protocol):
    """Writes the files of one shard. Equal rows give equal bytes: no clock, no random numbers, no machine."""

    def write(self, row: Row) -> None:
        """Add a clip. The order of the calls is that of the items in the shard.

        Raises:
            OSError: the disk is full, for example.
        """

    def close(self) -> None:
        """Complete the files. Not called after an error."""

    def abort(self) -> None:
        """Release what is open, without raising an error; the files are removed by the caller."""


@dataclass(frozen=True)
class Contents:
    """What the files of a shard hold, as read back from the disk."""

    clips: int
    codes: int


@dataclass(frozen=True)
class OutputFormat:
    """A format of the output.

    Attributes:
        name: of `--format`.
        suffixes: of the files of a shard, which are called after it: `shard-00000.parquet`. The suffix "" is a folder.
        open: makes the writer of a shard. It gets the temporary paths, one for each suffix, in their order. Of a folder
            the path is there already.
        check: reads the written files back (temporary paths again); they are renamed where this fits what was written.
            It raises DmcodecError or OSError for damaged files.
        needs: modules that it imports.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[WriterSettings, Sequence[Path]], ShardWriter]
    check: Callable[[WriterSettings, Sequence[Path]], Contents]
    needs: tuple[str, ...] = ()
