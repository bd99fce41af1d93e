"""Writes features shard by shard; a shard that is there is not made again."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import OutputExistsError, TeacherError
from dmcodec.files import make_folder
from dmcodec.training.data.features import TeacherInfo
from dmcodec.training.data.layout import META, OFFSETS, open_array, read_json, save_array, shard_name, write_json

RUN = "run.json"
SEGMENTS_PER_SHARD = 512
Features = Callable[[Sequence[int]], list[NDArray[np.float32]]]


def is_done(folder: Path, settings: Mapping[str, Any], force: bool) -> bool:
    """Whether `folder` holds features of these settings; otherwise makes it ready to write them.

    Raises:
        OutputExistsError: it holds features of other settings, whole or not, and `force` is false.
    """
    if force:
        (folder / META).unlink(missing_ok=True)  # first: without it the folder isn't taken for whole
        shutil.rmtree(folder, ignore_errors=True)
    whole = (folder / META).exists()
    if whole or (folder / RUN).exists():
        found = TeacherInfo.read(folder).settings if whole else read_json(folder / RUN)
        changed = [name for name in {**found, **settings} if _plain(found.get(name)) != _plain(settings.get(name))]
        if changed:
            state = "was taught" if whole else "was taught in part"
            raise OutputExistsError(
                f"{folder}: {state} with another {', '.join(sorted(changed))}; --force teaches again"
            )
        return whole
    make_folder(folder)
    write_json(folder / RUN, dict(settings))
    return False


def write_features(
    folder: Path,
    num_segments: int,
    width: int,
    features: Features,
    report: Callable[[int, int], None],
    per_shard: int = SEGMENTS_PER_SHARD,
) -> tuple[int, ...]:
    """Makes the shards that are missing, and the offsets.

    Args:
        folder: of the teacher.
        num_segments: of the data.
        width: of the features.
        features: gives those of some segments, in their order: (frames, width) each.
        report: called with (segments done, segments there are).
        per_shard: segments in a shard.

    Returns:
        Sizes of the shards in bytes.

    Raises:
        TeacherError: NaN, infinite or too large values, with the segment's number.
        OutputError: the disk is full.
    """
    sizes, counts = [], []
    for index in range(math.ceil(num_segments / per_shard)):
        segments = range(index * per_shard, min((index + 1) * per_shard, num_segments))
        path = folder / shard_name(index)
        count_path = path.with_suffix(".counts.npy")
        if not count_path.exists():
            rows = features(segments)
            for segment, row in zip(segments, rows, strict=True):
                check(segment, row, width)
            save_array(path, np.concatenate([row.astype(np.float16) for row in rows]))
            save_array(count_path, np.array([len(row) for row in rows], np.int64))
        sizes.append(path.stat().st_size)
        counts.append(np.array(open_array(count_path, np.int64, 1)))
        report(segments.stop, num_segments)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    save_array(folder / OFFSETS, offsets)
    return tuple(sizes)


def clean(folder: Path) -> None:
    """Removes what only an unfinished run needs."""
    for path in [*folder.glob("*.counts.npy"), folder / RUN]:
        path.unlink(missing_ok=True)


def check(segment: int, row: NDArray[np.float32], width: int) -> None:
    """Raises TeacherError where a segment's features can't be kept in half precision, naming the segment."""
    if row.ndim != 2 or row.shape[1] != width:
        raise TeacherError(f"segment {segment}: the teacher gives shape {row.shape}, not (frames, {width})")
    if not np.isfinite(row).all():
        raise TeacherError(
            f"segment {segment}: the teacher gives NaN or infinite values; use another teacher, or prepare without it"
        )
    peak = float(np.abs(row).max(initial=0.0))
    if peak > float(np.finfo(np.float16).max):
        raise TeacherError(
            f"segment {segment}: the teacher gives {peak:.3g}, too large for half precision; take another layer"
        )


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
