"""The data folder: names of its files, its manifest, its tables, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import DataError, DataNotFoundError, MissingDependencyError, first_line
from dmcodec.files import file_sha256, output_file, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa

# FOLDED: Small files of a data folder: JSON, .npy arrays and Parquet tables, written whole or not at all.


FORMAT = "dmcodec-data"
FORMAT_VERSION = 1
TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
MANIFEST = "manifest.json"
SEGMENTS = "segments.parquet"
TRANSCRIPTS = "transcripts.parquet"
AUDIO = "audio"
TEACHERS = "teachers"
META = "meta.json"
OFFSETS = "offsets.npy"


def shard_name(index: int) -> str:
    """File name of shard `index`."""
    return f"{index:05d}.npy"


def segments_schema() -> pa.Schema:
    """Columns of segments.parquet; the row number is the segment id."""
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
    """One file of audio: int16 (num_samples,)."""

    file: str
    num_samples: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Skipped:
    """A source that isn't in the data, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What manifest.json holds.

    Attributes:
        sample_rate: in Hz.
        segment_samples: length of a full segment; shorter ones are sources shorter than it.
        fingerprint: identifies segments and audio; see `fingerprint_of`.
        segments_sha256: of segments.parquet.
        shards: of the audio.
        split: how segments were split: {"by", "seed", "validation"}.
        totals: counts and durations.
        skipped: sources that aren't in the data.
        settings: the rest of what the data were prepared with.
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
            raise ValueError("rates and lengths are positive")

    def write(self, folder: Path) -> None:
        """Writes manifest.json; what makes a data folder complete."""
        write_json(folder / MANIFEST, {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads manifest.json.

        Raises:
            DataNotFoundError: not a data folder, or one that isn't finished.
            DataError: of a newer version, or damaged.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise DataNotFoundError(
                f"{folder}: {_why_no_manifest(folder)}; run `dmcodec train prepare AUDIO... --out {folder}`"
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
            kept = {each.name: value[each.name] for each in fields(cls)}
            kept["shards"] = tuple(Shard(**shard) for shard in value["shards"])
            kept["skipped"] = tuple(Skipped(**skipped) for skipped in value["skipped"])
            return cls(**kept)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); prepare again") from None


def _why_no_manifest(folder: Path) -> str:
    if not folder.is_dir():
        return "no such data folder"
    return "preparing it was not finished" if (folder / AUDIO).is_dir() else "isn't a data folder"


def fingerprint_of(
    sample_rate: int,
    shards: Sequence[Shard],
    shard: NDArray[np.int32],
    offset_samples: NDArray[np.int64],
    num_samples: NDArray[np.int32],
) -> str:
    """Identifies the audio and where its segments lie, not names, speakers or the split.

    Returns:
        32 hexadecimal digits, from a sha256.
    """
    digest = hashlib.sha256(f"{FORMAT} {sample_rate}".encode())
    for each in shards:
        digest.update(each.sha256.encode())
    digest.update(np.ascontiguousarray(shard, "<i4").tobytes())
    digest.update(np.ascontiguousarray(offset_samples, "<i8").tobytes())
    digest.update(np.ascontiguousarray(num_samples, "<i4").tobytes())
    return digest.hexdigest()[:32]


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DataNotFoundError: no such file.
        DataError: not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from None
    except ValueError as error:
        raise DataError(f"{path}: is damaged, not JSON ({error}); prepare or teach again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: is damaged, not a JSON object; prepare or teach again")
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON document, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array as .npy, whole or not at all."""
    with output_file(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def open_array(path: Path, dtype: Any, ndim: int) -> NDArray[Any]:
    """Memory-maps a .npy file read-only, and checks its type.

    Raises:
        DataNotFoundError: no such file.
        DataError: cut short, not .npy, or of another type.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is damaged ({error}); prepare or teach again") from None
    if array.dtype != np.dtype(dtype) or array.ndim != ndim:
        raise DataError(f"{path}: is damaged, holds {array.dtype} of {array.ndim} dimensions; prepare or teach again")
    return array


def check_size(path: Path, size_bytes: int) -> None:
    """Raises DataNotFoundError or DataError where `path` isn't a file of `size_bytes`."""
    try:
        found = path.stat().st_size
    except OSError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    if found != size_bytes:
        raise DataError(f"{path}: has {found} bytes, not {size_bytes}: cut short or altered; prepare or teach again")


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataNotFoundError(f"{path}: can't be read ({error.strerror or error})") from None


def write_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file, whole or not at all."""
    parquet = parquet_module()
    with output_file(path) as temporary:
        parquet.write_table(table, temporary, compression="zstd")


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """Reads a Parquet file whose columns must be those of `schema`.

    Raises:
        DataNotFoundError: no such file.
        DataError: damaged, or other columns.
    """
    parquet = parquet_module()
    try:
        found = parquet.read_schema(path)
        table = parquet.read_table(path, columns=columns)
    except FileNotFoundError:
        raise DataNotFoundError(f"{path}: is missing; prepare or teach again") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({first_line(error)}); prepare or teach again") from None
    if found.names != schema.names or found.types != schema.types:
        raise DataError(f"{path}: is damaged, its columns are {found.names}; prepare or teach again")
    return table


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        MissingDependencyError: it isn't installed.
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        raise MissingDependencyError(
            'training data need pyarrow, which is not installed; run `pip install "dmcodec[train]"`'
        ) from None
    return pa


def parquet_module() -> Any:
    """The module pyarrow.parquet."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet
