"""Writer of features, shard by shard; complete shards of an interrupted run are kept."""

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
from dmcodec.training.data.layout import META, OFFSETS, shard_name
from dmcodec.training.data.storage import open_array, read_json, save_array, write_json

RUN = "run.json"
SEGMENTS_PER_SHARD = 512
Features = Callable[[Sequence[int]], list[NDArray[np.float32]]]


def is_done(folder: Path, settings: Mapping[str, Any], force: bool) -> bool:
    """Return whether `folder` holds complete features of these settings; otherwise prepare it for writing them.

    Raises:
        OutputExistsError: the folder holds features of other settings, complete or not, and `force` is false.
    """
    if force:
        (folder / META).unlink(missing_ok=True)  # first: without it the folder counts as incomplete
        shutil.rmtree(folder, ignore_errors=True)
    is_complete = (folder / META).exists()
    if is_complete or (folder / RUN).exists():
        found = TeacherInfo.read(folder).settings if is_complete else read_json(folder / RUN)
        changed = [
            name for name in {**found, **settings} if _canonical(found.get(name)) != _canonical(settings.get(name))
        ]
        if changed:
            state = "holds features" if is_complete else "holds incomplete features"
            raise OutputExistsError(
                f"{folder}: {state} of another {', '.join(sorted(changed))}; use --force to replace them"
            )
        return is_complete
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
    """Write the missing shards, and the offsets.

    Args:
        folder: of the teacher.
        num_segments: of the data.
        width: of the features.
        features: returns the features of some segments, in order: (frames, width) each.
        report: called with (segments done, total).
        per_shard: segments in a shard.

    Returns:
        Sizes of the shards in bytes.

    Raises:
        TeacherError: NaN, infinite or too large values; the segment is named.
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
                check_features(segment, row, width)
            save_array(path, np.concatenate([row.astype(np.float16) for row in rows]))
            save_array(count_path, np.array([len(row) for row in rows], np.int64))
        sizes.append(path.stat().st_size)
        counts.append(np.array(open_array(count_path, np.int64, 1)))
        report(segments.stop, num_segments)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    save_array(folder / OFFSETS, offsets)
    return tuple(sizes)


def remove_temporary_files(folder: Path) -> None:
    """Remove the files that only an unfinished run needs."""
    for path in [*folder.glob("*.counts.npy"), folder / RUN]:
        path.unlink(missing_ok=True)


def check_features(segment: int, row: NDArray[np.float32], width: int) -> None:
    """Raise TeacherError where the features of a segment can't be stored in half precision."""
    if row.ndim != 2 or row.shape[1] != width:
        raise TeacherError(f"segment {segment}: the teacher gives shape {row.shape}, not (frames, {width})")
    if not np.isfinite(row).all():
        raise TeacherError(
            f"segment {segment}: the teacher gives NaN or infinite values; use another teacher, or prepare without it"
        )
    peak = float(np.abs(row).max(initial=0.0))
    if peak > float(np.finfo(np.float16).max):
        raise TeacherError(
            f"segment {segment}: the teacher gives {peak:.3g}, too large for half precision; use another layer"
        )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
