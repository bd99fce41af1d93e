"""A teacher's features on disk: float16 frames in memory-mapped shards, their description, and their frame rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import DataError, TeacherError

from .layout import META, OFFSETS, shard_name
from .storage import check_size, open_array, read_json, write_json

FORMAT = "dmcodec-teacher"
FORMAT_VERSION = 1
SAME_RATE = 0.02  # relative; HuBERT gives 149 frames for 3 s at 50 Hz, the codec 150


@dataclass(frozen=True)
class TeacherInfo:
    """The description of a teacher's features, meta.json.

    Attributes:
        kind: "sm" (speech model) or "lm" (language model).
        model: id on the hub, or folder.
        width: of the features.
        frame_rate_hz: of the features.
        layers: "avg", "last", or the number of a hidden state.
        aligned: of an LM: rows follow the times of the words, and a row of zeros means that no word is said there; a
            loss must leave such rows out. False: the paper's form, the tokens in their order, one per frame.
        fingerprint: of the data folder.
        segments_per_shard: shard i holds the segments from i * segments_per_shard on.
        size_bytes: of each shard.
        settings: all else that the features depend on; equal settings give equal features.
        versions: of the packages that computed the features.
    """

    kind: str
    model: str
    width: int
    frame_rate_hz: float
    layers: str
    aligned: bool
    fingerprint: str
    segments_per_shard: int
    size_bytes: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.frame_rate_hz > 0 and self.segments_per_shard > 0):
            raise ValueError("widths, rates and counts must be positive")

    def write(self, folder: Path) -> None:
        """Write meta.json, which marks the features as complete."""
        write_json(folder / META, {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> TeacherInfo:
        """Read meta.json; DataError where it is damaged, TeacherError where it is of a newer version."""
        path = folder / META
        value = read_json(path)
        version = value.get("format_version")
        if value.get("format") != FORMAT or not isinstance(version, int):
            raise DataError(f"{path}: is not the description of a teacher's features; teach again")
        if version > FORMAT_VERSION:
            raise TeacherError(
                f"{path}: format version {version} is newer than this dmcodec reads ({FORMAT_VERSION}); upgrade dmcodec"
            )
        try:
            known = {each.name: value[each.name] for each in fields(cls)}
            return cls(**{**known, "size_bytes": tuple(int(size) for size in value["size_bytes"])})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); teach again") from None


class FeatureReader:
    """Reads the features of one teacher; a shard is mapped into memory when it is first read."""

    def __init__(self, folder: Path, info: TeacherInfo, num_segments: int) -> None:
        """Check the offsets and the sizes of the shards.

        Raises:
            DataError: files are missing, cut short, or do not belong together.
        """
        self.info = info
        self._folder = folder
        self._shards: dict[int, NDArray[np.float16]] = {}
        self._offsets: NDArray[np.int64] = np.array(open_array(folder / OFFSETS, np.int64, 1))
        per_shard = info.segments_per_shard
        self._starts = self._offsets[:-1:per_shard]
        if len(self._offsets) != num_segments + 1 or len(self._starts) != len(info.size_bytes):
            raise DataError(f"{folder / OFFSETS}: is damaged, or of other data; teach again")
        for index, size_bytes in enumerate(info.size_bytes):
            check_size(folder / shard_name(index), size_bytes)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the memory maps: another process opens its own."""
        return {**self.__dict__, "_shards": {}}

    def read(self, segment: int) -> NDArray[np.float16]:
        """Return the features of a segment as stored, (frames, width)."""
        index = segment // self.info.segments_per_shard
        if index not in self._shards:
            path = self._folder / shard_name(index)
            shard = open_array(path, np.float16, 2)
            end = min((index + 1) * self.info.segments_per_shard, len(self._offsets) - 1)
            if shard.shape != (self._offsets[end] - self._starts[index], self.info.width):
                raise DataError(f"{path}: is damaged, of shape {shard.shape}; teach again")
            self._shards[index] = shard
        start, end = self._offsets[segment : segment + 2] - self._starts[index]
        return self._shards[index][start:end]


def resample_frames(
    features: NDArray[np.floating], rate_hz: float, num_frames: int, frame_rate_hz: float, nearest: bool = False
) -> NDArray[np.float32]:
    """Resample features to another frame rate.

    Rates within 2 % of each other count as equal; then frame i stays frame i. Otherwise the features are interpolated
    linearly at the centres of the new frames; before the first and after the last old centre they are constant.

    Args:
        features: (teacher_frames, width).
        rate_hz: of `features`.
        num_frames: maximal number of new frames.
        frame_rate_hz: of the new frames.
        nearest: take the nearest frame instead of interpolating, where rows of zeros mean that no word is said.

    Returns:
        (frames, width) float32, `num_frames` or fewer: a teacher may give fewer frames for the same time, and the loss
        then uses the shorter length, as the paper does.
    """
    if abs(rate_hz - frame_rate_hz) <= SAME_RATE * frame_rate_hz:
        return np.array(features[:num_frames], np.float32)
    available = max(1, round(len(features) / rate_hz * frame_rate_hz)) if len(features) else 0
    centres = (np.arange(min(num_frames, available)) + 0.5) / frame_rate_hz
    positions = np.clip(centres * rate_hz - 0.5, 0, max(len(features) - 1, 0))
    if nearest:
        return np.array(features[np.rint(positions).astype(np.int64)], np.float32)
    below = np.floor(positions).astype(np.int64)
    above = np.minimum(below + 1, max(len(features) - 1, 0))
    share = (positions - below).astype(np.float32)[:, None]
    lower, upper = np.asarray(features[below], np.float32), np.asarray(features[above], np.float32)
    return np.asarray(lower + share * (upper - lower), np.float32)
