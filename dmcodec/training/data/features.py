"""A teacher's features on disk: float16 frames in memory-mapped shards, with their offsets, and what made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import DataError, TeacherError

from .layout import META, OFFSETS, check_size, open_array, read_json, shard_name, write_json

# FOLDED: Teachers' frames on the codec's frame grid.


FORMAT = "dmcodec-teacher"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class TeacherInfo:
    """What meta.json of a teacher holds.

    Attributes:
        kind: "sm" (speech model) or "lm" (language model).
        model: id or folder that it was loaded from.
        width: of its features.
        frame_rate_hz: of its features.
        layers: "avg", "last", or the number of a hidden state.
        aligned: of an LM: rows follow the words' times, and rows of zeros mean "no word here", which a loss must
            leave out. False: the paper's form, tokens in their order, one a frame, whatever the time.
        fingerprint: of the data that were taught.
        segments_per_shard: shard i holds segments i * segments_per_shard and the following.
        size_bytes: of each shard.
        settings: whatever else the features depend on; equal settings give equal features.
        versions: of the packages that made them.
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
            raise ValueError("widths, rates and counts are positive")

    def write(self, folder: Path) -> None:
        """Writes meta.json; what makes a teacher's folder complete."""
        write_json(folder / META, {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> TeacherInfo:
        """Reads meta.json; DataError where it is damaged, TeacherError where it is of a newer version."""
        path = folder / META
        value = read_json(path)
        version = value.get("format_version")
        if value.get("format") != FORMAT or not isinstance(version, int):
            raise DataError(f"{path}: isn't the description of a teacher's features; teach again")
        if version > FORMAT_VERSION:
            raise TeacherError(
                f"{path}: format version {version} is newer than this dmcodec reads ({FORMAT_VERSION}); upgrade dmcodec"
            )
        try:
            kept = {each.name: value[each.name] for each in fields(cls)}
            return cls(**{**kept, "size_bytes": tuple(int(size) for size in value["size_bytes"])})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); teach again") from None


class Features:
    """Reads one teacher's features; shards are mapped when they are first read."""

    def __init__(self, folder: Path, info: TeacherInfo, num_segments: int) -> None:
        """Checks offsets and the sizes of the shards.

        Raises:
            DataError: files are missing, cut short, or don't fit each other.
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
        """Without the maps: another process opens its own."""
        return {**self.__dict__, "_shards": {}}

    def read(self, segment: int) -> NDArray[np.float16]:
        """(frames, width), as they were stored."""
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


SAME_RATE = 0.02  # relative; HuBERT's 149 frames for 3 s at 50 Hz are the codec's 150, but for the last


def on_grid(
    features: NDArray[np.floating], rate_hz: float, num_frames: int, frame_rate_hz: float, nearest: bool = False
) -> NDArray[np.float32]:
    """Puts features of one frame rate on the grid of another.

    Rates within 2 % of each other count as equal, and frames are taken one for one. Otherwise the features are
    interpolated linearly in time at the centres of the new frames; before the first and after the last centre, the
    first and last values hold.

    Args:
        features: (teacher_frames, width).
        rate_hz: of `features`.
        num_frames: wanted.
        frame_rate_hz: wanted.
        nearest: takes the nearest frame instead of interpolating: rows of zeros mean "nothing", and blend with nothing.

    Returns:
        (min(num_frames, frames there are), width) float32: a teacher that has fewer frames for the same time gives
        fewer, and the loss cuts to the shorter, as the paper does.
    """
    if abs(rate_hz - frame_rate_hz) <= SAME_RATE * frame_rate_hz:
        return np.array(features[:num_frames], np.float32)
    there_are = max(1, round(len(features) / rate_hz * frame_rate_hz)) if len(features) else 0
    centres = (np.arange(min(num_frames, there_are)) + 0.5) / frame_rate_hz
    positions = np.clip(centres * rate_hz - 0.5, 0, max(len(features) - 1, 0))
    if nearest:
        return np.array(features[np.rint(positions).astype(np.int64)], np.float32)
    below = np.floor(positions).astype(np.int64)
    above = np.minimum(below + 1, max(len(features) - 1, 0))
    share = (positions - below).astype(np.float32)[:, None]
    lower, upper = np.asarray(features[below], np.float32), np.asarray(features[above], np.float32)
    return np.asarray(lower + share * (upper - lower), np.float32)
