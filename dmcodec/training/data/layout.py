"""Layout of a data folder: names of its files, its manifest, and its fingerprint."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import DataError, DataNotFoundError

from .storage import arrow, read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "dmcodec-data"
FORMAT_VERSION = 1
TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
MANIFEST = "manifest.json"
SEGMENTS = "segments.parquet"
TRANSCRIPTS = "transcripts.parquet"
GIVEN_TRANSCRIPTS = "given.parquet"
AUDIO = "audio"
TEACHERS = "teachers"
META = "meta.json"
OFFSETS = "offsets.npy"


def shard_name(index: int) -> str:
    """Return the file name of shard `index`."""
    return f"{index:05d}.npy"


def segments_schema() -> pa.Schema:
    """Return the columns of segments.parquet, whose row number is the segment id."""
    pa = arrow()
    columns = {
        "shard": pa.int32(),
        "offset_samples": pa.int64(),
        "num_samples": pa.int32(),
        "source": pa.string(),
        "start_s": pa.float64(),
        "speaker": pa.string(),
        "split": pa.string(),
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


@dataclass(frozen=True)
class Shard:
    """A file of audio, int16 (num_samples,), as the manifest lists it."""

    file: str
    num_samples: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """A recording that is not in the data, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of a data folder, manifest.json.

    Attributes:
        sample_rate: in Hz.
        segment_samples: length of a full segment. A recording shorter than that is one shorter segment.
        fingerprint: of audio and segments (`fingerprint_of`).
        segments_sha256: of segments.parquet.
        shards: of the audio.
        split: how segments were split: {"by", "seed", "validation"}.
        totals: counts and durations.
        skipped: recordings that are not in the data.
        settings: all that the data were prepared with.
    """

    sample_rate: int
    segment_samples: int
    fingerprint: str
    segments_sha256: str
    shards: tuple[Shard, ...]
    split: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.sample_rate > 0 and self.segment_samples > 0):
            raise ValueError("rates and lengths must be positive")

    def write(self, folder: Path) -> None:
        """Write manifest.json, which marks the data folder as complete."""
        write_json(folder / MANIFEST, {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read manifest.json.

        Raises:
            DataNotFoundError: not a data folder, or an incomplete one.
            DataError: the manifest is damaged, or of a newer version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            out = shlex.quote(str(folder))
            raise DataNotFoundError(
                f"{folder}: {_why_no_manifest(folder)}; run `dmcodec train prepare AUDIO --out {out}`"
            )
        value = read_json(path)
        if value.get("format") != FORMAT:
            raise DataError(f"{path}: isn't the manifest of training data; name a folder that `train prepare` wrote")
        version = value.get("format_version")
        if not isinstance(version, int) or version < 1:
            raise DataError(f"{path}: is damaged (format_version {version!r}); prepare again")
        if version > FORMAT_VERSION:
            raise DataError(
                f"{path}: format version {version} is newer than this dmcodec reads ({FORMAT_VERSION}); upgrade dmcodec"
            )
        try:
            known = {each.name: value[each.name] for each in fields(cls)}
            known["shards"] = tuple(Shard(**shard) for shard in value["shards"])
            known["skipped"] = tuple(Skipped(**skipped) for skipped in value["skipped"])
            return cls(**known)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); prepare again") from None


def _why_no_manifest(folder: Path) -> str:
    if not folder.is_dir():
        return "no such data folder"
    return "its preparation is not finished" if (folder / AUDIO).is_dir() else "isn't a data folder"


def fingerprint_of(
    sample_rate: int,
    shards: Sequence[Shard],
    shard: NDArray[np.int32],
    offset_samples: NDArray[np.int64],
    num_samples: NDArray[np.int32],
) -> str:
    """Return what identifies the audio and the positions of its segments: 32 hex digits of a SHA-256.

    Names, speakers and the split do not count.
    """
    digest = hashlib.sha256(f"{FORMAT} {sample_rate}".encode())
    for each in shards:
        digest.update(each.sha256.encode())
    digest.update(np.ascontiguousarray(shard, "<i4").tobytes())
    digest.update(np.ascontiguousarray(offset_samples, "<i8").tobytes())
    digest.update(np.ascontiguousarray(num_samples, "<i4").tobytes())
    return digest.hexdigest()[:32]
