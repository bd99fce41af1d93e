"""Reader of a data folder: segments of audio, their split, and teachers' features at the codec's frame rate."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ArgumentError, DataError, TeacherError, TeacherNotFoundError

from .features import FeatureReader, TeacherInfo, resample_frames
from .layout import (
    AUDIO,
    META,
    SEGMENTS,
    SPLITS,
    TEACHERS,
    TRANSCRIPTS,
    Manifest,
    fingerprint_of,
    segments_schema,
)
from .storage import check_size, open_array, read_table, sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = ("sm", "lm")
_POSITIONS = ["shard", "offset_samples", "num_samples", "split"]


@dataclass(frozen=True, eq=False)
class PreparedData:
    """A data folder, open for reading. Opening it reads no audio, and pickling it copies none.

    Attributes:
        folder: path of the data folder.
        manifest: of the folder.
        num_samples: (segments,) int32, the length of each segment.
    """

    folder: Path
    manifest: Manifest
    num_samples: NDArray[np.int32]
    _shard: NDArray[np.int32]
    _offset: NDArray[np.int64]
    _split: NDArray[np.int8]
    _features: dict[str, FeatureReader] = field(default_factory=dict)
    _maps: dict[int, NDArray[np.int16]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path) -> PreparedData:
        """Open a data folder, and check versions, sizes, the table of segments and the teachers' features.

        The audio is not read; `verify` reads it.

        Raises:
            DataNotFoundError: not a data folder, an incomplete one, or files are missing.
            DataError: the folder is damaged, altered, or of a newer version.
            TeacherError: the data were changed after `train teach`.
        """
        data = cls.open_without_teachers(folder)
        kinds = [kind for kind in KINDS if (data.folder / TEACHERS / kind / META).is_file()]
        data._features.update({kind: _open_teacher(data, kind) for kind in kinds})
        return data

    @classmethod
    def open_without_teachers(cls, folder: str | Path) -> PreparedData:
        """Open a data folder as `open` does, but ignore teachers' features, which may be of other data."""
        folder = Path(folder)
        manifest = Manifest.read(folder)
        path = folder / SEGMENTS
        table = read_table(path, segments_schema(), _POSITIONS)
        if sha256_of(path) != manifest.segments_sha256:
            raise DataError(f"{path}: was altered after preparing; prepare again")
        shard, offset, num_samples = (table.column(name).to_numpy() for name in _POSITIONS[:3])
        split = np.array([SPLITS.index(name) for name in table.column("split").to_pylist()], np.int8)
        if fingerprint_of(manifest.sample_rate, manifest.shards, shard, offset, num_samples) != manifest.fingerprint:
            raise DataError(f"{folder}: manifest.json and segments.parquet don't belong together; prepare again")
        for each in manifest.shards:
            check_size(folder / AUDIO / each.file, each.size_bytes)
        return cls(folder, manifest, num_samples, shard, offset, split)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the memory maps: another process opens its own."""
        return {**self.__dict__, "_maps": {}}

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.manifest.sample_rate

    @property
    def segment_samples(self) -> int:
        """Length of a full segment. A recording shorter than that is one shorter segment."""
        return self.manifest.segment_samples

    @property
    def fingerprint(self) -> str:
        """What identifies the audio and the segments."""
        return self.manifest.fingerprint

    @property
    def num_segments(self) -> int:
        """Number of segments in both splits."""
        return len(self.num_samples)

    @property
    def teachers(self) -> Mapping[str, TeacherInfo]:
        """Descriptions of the stored features, by kind of teacher: "sm", "lm"."""
        return MappingProxyType({kind: features.info for kind, features in self._features.items()})

    def segment_ids(self, split: str) -> NDArray[np.int64]:
        """Return the ids of the segments of a split, "train" or "validation", in ascending order."""
        if split not in SPLITS:
            raise ArgumentError(f"split {split!r} is not known; use {' or '.join(SPLITS)}")
        return np.flatnonzero(self._split == SPLITS.index(split)).astype(np.int64)

    def samples(self, segment: int) -> NDArray[np.int16]:
        """Return a segment as stored, (num_samples,) int16; a view of mapped memory."""
        index = self._index(segment)
        shard = int(self._shard[index])
        if shard not in self._maps:
            path = self.folder / AUDIO / self.manifest.shards[shard].file
            found = open_array(path, np.int16, 1)
            if len(found) != self.manifest.shards[shard].num_samples:
                raise DataError(f"{path}: is damaged, it holds {len(found)} samples; prepare again")
            self._maps[shard] = found
        start = int(self._offset[index])
        return self._maps[shard][start : start + int(self.num_samples[index])]

    def waveform(self, segment: int) -> NDArray[np.float32]:
        """Return a segment as (num_samples,) float32 in [-1, 1]."""
        return self.samples(segment).astype(np.float32) * np.float32(1 / 32768)

    def teacher(self, kind: str, segment: int, num_frames: int, frame_rate_hz: float) -> NDArray[np.float32]:
        """Return a teacher's features of a segment at the codec's frame rate.

        Args:
            kind: "sm" or "lm".
            segment: its id.
            num_frames: of the codec for the segment.
            frame_rate_hz: of the codec.

        Returns:
            (frames, width) float32, `num_frames` or fewer (HuBERT gives 149 frames for 3 s, the codec 150); see
            `resample_frames`. Rows of zeros of an aligned LM mean that no word is said.

        Raises:
            TeacherNotFoundError: the folder holds no features of this kind.
        """
        if kind not in self._features:
            raise TeacherNotFoundError(
                f"{self.folder}: has no {kind} teacher; run `{teach_command(self.folder, kind)}`"
            )
        features = self._features[kind]
        info = features.info
        return resample_frames(
            features.read(self._index(segment)), info.frame_rate_hz, num_frames, frame_rate_hz, nearest=info.aligned
        )

    def table(self) -> pa.Table:
        """Return all columns of segments.parquet, whose row number is the segment id."""
        return read_table(self.folder / SEGMENTS, segments_schema())

    def verify(self) -> None:
        """Read all audio, and compare its SHA-256 with the manifest.

        Raises:
            DataError: the audio was altered.
        """
        for each in self.manifest.shards:
            path = self.folder / AUDIO / each.file
            if sha256_of(path) != each.sha256:
                raise DataError(f"{path}: was altered after preparing; prepare again")

    def _index(self, segment: int) -> int:
        if not 0 <= segment < self.num_segments:
            raise ArgumentError(f"segment {segment} is not one of the {self.num_segments} of {self.folder}")
        return int(segment)


def teach_command(folder: Path, kind: str) -> str:
    """Return the command that adds a teacher's features. The language model reads what a recogniser transcribes."""
    transcripts = " --asr MODEL" if kind == "lm" else ""
    return f"dmcodec train teach {shlex.quote(str(folder))} --{kind} MODEL{transcripts}"


def _open_teacher(data: PreparedData, kind: str) -> FeatureReader:
    path = data.folder / TEACHERS / kind
    info = TeacherInfo.read(path)
    again = f"run `dmcodec train teach {shlex.quote(str(data.folder))} --force` with its models again"
    if info.fingerprint != data.fingerprint:
        raise TeacherError(f"{path}: the data were changed after teaching; {again}")
    transcripts = info.settings.get("transcripts_sha256")
    if transcripts is not None and transcripts != sha256_of(data.folder / TRANSCRIPTS):
        raise TeacherError(f"{path}: the transcripts were changed after teaching; {again}")
    return FeatureReader(path, info, data.num_segments)
