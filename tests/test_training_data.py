"""`train prepare`: segments, splits and shards; interrupted and killed runs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, strategies
from platforms import posix
from recordings import RATE, noise, prepared, recordings

from dmcodec.audio_sources import DatasetOptions, Source, Sources, find_sources
from dmcodec.errors import ArgumentError, AudioError, DataError, DataNotFoundError, OutputError, OutputExistsError
from dmcodec.training.data import PreparedData
from dmcodec.training.data.prepare import PrepareSettings, assign_splits, prepare
from dmcodec.training.data.shards import cut_segments


@given(num_samples=strategies.integers(0, 5000), segment=strategies.integers(1, 700))
def test_every_sample_is_in_a_segment(num_samples: int, segment: int) -> None:
    pieces = cut_segments(num_samples, segment)
    covered = np.zeros(num_samples, bool)
    for start, length in pieces:
        assert start >= 0
        assert start + length <= num_samples
        assert length == min(segment, num_samples)
        covered[start : start + length] = True
    assert covered.all()
    assert [start for start, _ in pieces] == sorted({start for start, _ in pieces})
    assert len(pieces) == -(-num_samples // segment)


@given(keys=strategies.sets(strategies.text(max_size=5), min_size=2, max_size=50), seed=strategies.integers(0, 9))
def test_both_splits_hold_something_and_more_keys_move_few(keys: set[str], seed: int) -> None:
    sides = assign_splits(keys, 0.3, seed)
    assert set(sides.values()) == {"train", "validation"}
    assert sides == assign_splits(sorted(keys), 0.3, seed)
    more = assign_splits({*keys, "another one"}, 0.3, seed)
    assert sum(more[key] != side for key, side in sides.items()) <= 1


def test_split_without_validation_and_with_one_key() -> None:
    assert assign_splits({"a"}, 0.0, 0) == {"a": "train"}
    with pytest.raises(DataError, match="--validation 0"):
        assign_splits({"a"}, 0.1, 0)


def test_segments_hold_the_audio(noise_recordings: Path, tmp_path: Path) -> None:
    data = prepared([str(noise_recordings)], tmp_path / "data")
    assert (data.sample_rate, data.segment_samples, data.num_segments) == (RATE, RATE, 3 + 1 + 1 + 3 + 2)
    table = data.table().to_pylist()
    for segment, row in enumerate(table):
        original, _ = soundfile.read(noise_recordings / row["source"], dtype="float32")
        start = round(row["start_s"] * RATE)
        assert np.array_equal(data.waveform(segment), original[start : start + row["num_samples"]])
        assert data.waveform(segment).dtype == np.float32
    train, validation = data.segment_ids("train"), data.segment_ids("validation")
    assert sorted([*train, *validation]) == list(range(data.num_segments))
    assert not {table[i]["source"] for i in train} & {table[i]["source"] for i in validation}
    data.verify()
    with pytest.raises(ArgumentError):
        data.segment_ids("test")
    with pytest.raises(ArgumentError):
        data.waveform(data.num_segments)


@pytest.mark.parametrize("shard_s", [1, 2, 4, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_shards_and_threads_change_no_audio(noise_recordings: Path, tmp_path: Path, shard_s: int, threads: int) -> None:
    whole = prepared([str(noise_recordings)], tmp_path / "whole")
    data = prepared([str(noise_recordings)], tmp_path / "data", shard_samples=shard_s * RATE, threads=threads)
    assert len(data.manifest.shards) >= 8 // max(shard_s, 2) // 2
    assert all(shard.num_samples <= (max(shard_s, 2) + 1) * RATE for shard in data.manifest.shards)
    assert data.num_segments == whole.num_segments
    assert all(np.array_equal(data.samples(i), whole.samples(i)) for i in range(data.num_segments))


def test_long_recordings_go_through_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmcodec.training.data.shards.BUFFER_BYTES", 1000)
    data = prepared([str(recordings(tmp_path / "audio", [7.3, 2.0]))], tmp_path / "data", shard_samples=2 * RATE)
    original, _ = soundfile.read(tmp_path / "audio" / "00.wav", dtype="float32")
    assert np.array_equal(np.concatenate([data.waveform(i) for i in range(7)]), original[: 7 * RATE])
    assert np.array_equal(data.waveform(7), original[-RATE:])


def test_sample_rates_and_channels_are_made_one(tmp_path: Path) -> None:
    seconds = np.arange(44100 * 2) / 44100
    tone = 0.5 * np.sin(2 * np.pi * 440 * seconds)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], 1), 44100)
    soundfile.write(tmp_path / "b.flac", tone[::2], 22050)
    data = prepared([str(tmp_path)], tmp_path / "data")
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    for segment in (0, 2):
        assert np.abs(data.waveform(segment) - expected)[200:-200].max() < 5e-3


def test_bad_recordings_are_skipped_with_reasons_or_errors(noise_recordings: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(noise_recordings, tmp_path / "bad"))
    soundfile.write(bad / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(bad / "short.wav", noise(0.1), RATE)
    soundfile.write(bad / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(bad / "cut.wav", noise(2.0), RATE)
    (bad / "cut.wav").write_bytes((bad / "cut.wav").read_bytes()[:2000])
    (bad / "text.wav").write_text("not audio")
    data = prepared([str(bad)], tmp_path / "data")
    reasons = {each.source: each.reason for each in data.manifest.skipped}
    assert set(reasons) == {"silent.wav", "short.wav", "nan.wav", "cut.wav", "text.wav"}
    assert "silent" in reasons["silent.wav"]
    assert "too short" in reasons["short.wav"]
    assert "NaN" in reasons["nan.wav"]
    assert data.manifest.totals["skipped_files"] == 5
    with pytest.raises(AudioError):
        prepared([str(bad)], tmp_path / "strict", strict=True)
    with pytest.raises(DataError, match="none of 1 recordings"):
        prepared([str(bad / "silent.wav")], tmp_path / "none")


def test_speakers_come_from_folders_or_a_pattern(tmp_path: Path) -> None:
    for speaker in ("anna", "ben", "carl"):
        recordings(tmp_path / "audio" / speaker / "chapter", [1.0, 1.5])
    inputs = [str(tmp_path / "audio")]
    by_speaker = {"split_by": "speaker"}
    data = prepared(inputs, tmp_path / "top", speaker_from="top", settings=by_speaker)
    rows = data.table().to_pylist()
    assert {row["speaker"] for row in rows} == {"anna", "ben", "carl"}
    validating = {rows[i]["speaker"] for i in data.segment_ids("validation")}
    assert not validating & {rows[i]["speaker"] for i in data.segment_ids("train")}
    pattern = prepared(inputs, tmp_path / "regex", speaker_from="regex:^([^/])", settings=by_speaker)
    assert {row["speaker"] for row in pattern.table().to_pylist()} == {"a", "b", "c"}
    with pytest.raises(ArgumentError, match="--speaker-from"):
        prepared(inputs, tmp_path / "unknown", settings=by_speaker)
    with pytest.raises(ArgumentError, match="doesn't match"):
        prepared(inputs, tmp_path / "bad", speaker_from="regex:(xyz)")


def test_the_same_again_is_done_and_other_options_need_force(noise_recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    first = prepared([str(noise_recordings)], out)
    written = (out / "manifest.json").stat().st_mtime_ns
    assert prepared([str(noise_recordings)], out).fingerprint == first.fingerprint
    assert (out / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(OutputExistsError, match="--force"):
        prepared([str(noise_recordings)], out, settings={"segment_s": 0.5})
    other = prepared([str(noise_recordings)], out, settings={"segment_s": 0.5}, force=True)
    assert other.fingerprint != first.fingerprint
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="something else"):
            prepared([str(noise_recordings)], tmp_path / "mine", force=force)


def test_an_interrupted_run_goes_on(noise_recordings: Path, tmp_path: Path) -> None:
    sources = find_sources([str(noise_recordings)], None, DatasetOptions())
    settings = PrepareSettings(segment_s=1.0, validation=0.3)
    read: list[int] = []

    def stops_at(last: int) -> Sources:
        def get(index: int) -> Source:
            if index > last:
                raise KeyboardInterrupt
            read.append(index)
            return sources.get(index)

        return Sources(sources.count, sources.identity, get)

    out = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        prepare(stops_at(3), out, settings, shard_samples=2 * RATE)
    with pytest.raises(DataNotFoundError, match="not finished"):
        PreparedData.open(out)
    with pytest.raises(OutputExistsError, match="unfinished"):
        prepare(sources, out, PrepareSettings(segment_s=0.5), shard_samples=2 * RATE)
    read.clear()
    prepare(stops_at(99), out, settings, shard_samples=2 * RATE)
    assert read
    assert read[0] > 0
    whole = prepared([str(noise_recordings)], tmp_path / "whole", shard_samples=2 * RATE)
    assert PreparedData.open(out).fingerprint == whole.fingerprint


def test_an_unfinished_run_without_its_identity_is_not_continued(noise_recordings: Path, tmp_path: Path) -> None:
    """Version 0.1.0 wrote it elsewhere: nobody knows from what audio and with which options the rest was made."""
    sources = find_sources([str(noise_recordings)], None, DatasetOptions())
    out = tmp_path / "data"
    stops = Sources(sources.count, sources.identity, lambda index: sources.get(index if index < 4 else 99))
    with pytest.raises(IndexError):
        prepare(stops, out, PrepareSettings(segment_s=1.0), shard_samples=RATE)
    assert list((out / ".prepare").glob("0*.json"))
    (out / ".prepare" / "run.json").unlink()
    with pytest.raises(OutputExistsError, match="unfinished"):
        prepare(sources, out, PrepareSettings(segment_s=0.5), shard_samples=RATE)
    prepare(sources, out, PrepareSettings(segment_s=0.5), shard_samples=RATE, force=True)
    assert set(PreparedData.open(out).num_samples) <= {RATE // 2}


@posix
def test_a_killed_process_goes_on(noise_recordings: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    for index in range(40):
        shutil.copytree(noise_recordings, many / f"{index:02d}")
    code = """
import sys
from pathlib import Path
from dmcodec.training.data.prepare import PrepareSettings, prepare
from dmcodec.audio_sources import DatasetOptions, find_sources
prepare(find_sources([sys.argv[1]], None, DatasetOptions()), Path(sys.argv[2]), PrepareSettings(segment_s=1.0),
        shard_samples=32000)
"""
    out = tmp_path / "data"
    process = subprocess.Popen([sys.executable, "-c", code, str(many), str(out)])
    deadline = time.monotonic() + 30
    while not list((out / ".prepare").glob("0*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    subprocess.run([sys.executable, "-c", code, str(many), str(out)], check=True)
    data = PreparedData.open(out)
    data.verify()
    whole = prepared([str(many)], tmp_path / "whole", shard_samples=32000, settings={"validation": 0.05})
    assert data.fingerprint == whole.fingerprint


def test_a_full_disk_leaves_no_half_folder(
    noise_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(OutputError, match="No space left on device"):
            prepared([str(noise_recordings)], tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()
    prepared([str(noise_recordings)], tmp_path / "data").verify()
