"""The reader of prepared data: damaged folders, and features of teachers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies
from numpy.typing import NDArray
from recordings import prepared

from dmcodec.errors import DataError, DataNotFoundError, TeacherError, TeacherNotFoundError
from dmcodec.training.data import PreparedData
from dmcodec.training.data.features import TeacherInfo, resample_frames


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "manifest.json").unlink(), "not finished"),
        (lambda d: (d / "manifest.json").write_text("{"), "not JSON"),
        (lambda d: (d / "manifest.json").write_text("{}"), "isn't the manifest"),
        (lambda d: (d / "segments.parquet").unlink(), "missing"),
        (lambda d: (d / "segments.parquet").write_bytes(b"PAR1"), "damaged"),
        (lambda d: (d / "audio" / "00000.npy").unlink(), "missing"),
        (lambda d: (d / "audio" / "00000.npy").write_bytes(b"x"), "has 1 bytes"),
    ],
)
def test_damaged_folders_are_refused(noise_recordings: Path, tmp_path: Path, spoil: Any, words: str) -> None:
    prepared([str(noise_recordings)], tmp_path / "data")
    spoil(tmp_path / "data")
    with pytest.raises(DataError, match=words):
        PreparedData.open(tmp_path / "data")


def test_newer_and_altered_manifests_are_refused(noise_recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepared([str(noise_recordings)], out)
    manifest = json.loads((out / "manifest.json").read_text())
    for change, words in (
        ({"format_version": 2}, "newer"),
        ({"sample_rate": 8000}, "belong together"),
        ({"segments_sha256": "0"}, "altered"),
        ({"shards": [{}]}, "damaged"),
        ({"sample_rate": -1}, "damaged"),
    ):
        (out / "manifest.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(DataError, match=words):
            PreparedData.open(out)
    with pytest.raises(DataNotFoundError, match="no such data folder"):
        PreparedData.open(tmp_path / "nowhere")
    with pytest.raises(DataNotFoundError, match="isn't a data folder"):
        PreparedData.open(noise_recordings)


def test_altered_audio_is_found_by_verify(noise_recordings: Path, tmp_path: Path) -> None:
    data = prepared([str(noise_recordings)], tmp_path / "data")
    path = tmp_path / "data" / "audio" / "00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="altered"):
        data.verify()


def store_features(data: PreparedData, kind: str, rate_hz: float, **changes: Any) -> list[NDArray[np.float16]]:
    """Features whose first column is the time of the frame's centre."""
    rows: list[NDArray[np.float16]] = []
    for samples in data.num_samples:
        frames = int(samples / data.sample_rate * rate_hz)
        times = (np.arange(frames) + 0.5) / rate_hz
        rows.append(np.stack([times, np.full(frames, len(rows))], 1).astype(np.float16))
    folder = data.folder / "teachers" / kind
    folder.mkdir(parents=True)
    sizes = []
    for index in range(0, len(rows), 4):
        path = folder / f"{index // 4:05d}.npy"
        np.save(path, np.concatenate(rows[index : index + 4]))
        sizes.append(path.stat().st_size)
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64))
    given = {"fingerprint": data.fingerprint, "aligned": False, **changes}
    TeacherInfo(kind, "m", 2, rate_hz, "avg", segments_per_shard=4, size_bytes=tuple(sizes), **given).write(folder)
    return rows


def test_features_are_read_on_the_codecs_grid(noise_recordings: Path, tmp_path: Path) -> None:
    store_features(prepared([str(noise_recordings)], tmp_path / "data"), "sm", 50.0)
    rows = store_features(PreparedData.open(tmp_path / "data"), "lm", 100.0)
    data = pickle.loads(pickle.dumps(PreparedData.open(tmp_path / "data")))
    assert len(pickle.dumps(data)) < 20000
    assert set(data.teachers) == {"sm", "lm"}
    assert data.teachers["lm"].width == 2
    for segment in range(data.num_segments):
        frames = -(-int(data.num_samples[segment]) // 320)
        for kind in ("sm", "lm"):
            found = data.teacher(kind, segment, frames, 50.0)
            assert found.dtype == np.float32
            assert frames - 1 <= len(found) <= frames
            assert (found[:, 1] == segment).all()
            assert np.abs(found[1:-1, 0] - (np.arange(1, len(found) - 1) + 0.5) / 50).max() < 2e-3
        exact = data.teacher("lm", segment, len(rows[segment]), 100.0)
        assert np.array_equal(exact, rows[segment].astype(np.float32))
        assert len(data.teacher("sm", segment, 3, 50.0)) == 3


def test_features_of_other_data_are_refused(noise_recordings: Path, tmp_path: Path) -> None:
    data = prepared([str(noise_recordings)], tmp_path / "data")
    with pytest.raises(TeacherNotFoundError, match="--sm MODEL"):
        data.teacher("sm", 0, 50, 50.0)
    store_features(data, "sm", 50.0)
    PreparedData.open(tmp_path / "data")
    shard = tmp_path / "data" / "teachers" / "sm" / "00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    with pytest.raises(DataError, match="cut short"):
        PreparedData.open(tmp_path / "data")
    shard.write_bytes(whole)
    with pytest.raises(TeacherError, match="changed after teaching"):
        prepared([str(noise_recordings)], tmp_path / "data", settings={"segment_s": 0.5}, force=True)


@given(frames=strategies.integers(0, 40), rate=strategies.floats(5, 200), wanted=strategies.integers(0, 60))
def test_grids_never_extrapolate(frames: int, rate: float, wanted: int) -> None:
    features = np.linspace(-1, 1, frames)[:, None].astype(np.float16).repeat(3, 1)
    for nearest in (False, True):
        found = resample_frames(features, rate, wanted, 50.0, nearest)
        assert found.shape[1] == 3
        assert len(found) <= wanted
        if len(found):
            assert features.min() <= found.min()
            assert found.max() <= features.max()
            assert (np.diff(found[:, 0]) >= 0).all()
