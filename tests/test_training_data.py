"""`train prepare` and the reader of its folders."""

from __future__ import annotations

import json
import pickle
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
from numpy.typing import NDArray

from dmcodec.audio_sources import DatasetOptions, Source, Sources, find_sources
from dmcodec.errors import (
    ArgumentError,
    AudioError,
    DataError,
    DataNotFoundError,
    DmcodecError,
    InputNotFoundError,
    OutputError,
    OutputExistsError,
    TeacherError,
    TeacherNotFoundError,
)
from dmcodec.training.data import PreparedData
from dmcodec.training.data.features import TeacherInfo, on_grid
from dmcodec.training.data.given_transcripts import Given, find, read_given, read_tsv
from dmcodec.training.data.layout import Manifest
from dmcodec.training.data.prepare import PrepareSettings, prepare
from dmcodec.training.data.shards import cut, split_keys

RATE = 16000
DMCODEC = [sys.executable, "-m", "dmcodec"]


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def recordings(folder: Path, lengths_s: list[float]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, length_s in enumerate(lengths_s):
        soundfile.write(folder / f"{index:02d}.wav", noise(length_s, index), RATE, subtype="PCM_16")
    return folder


def prepared(inputs: list[str], out: Path, **options: Any) -> PreparedData:
    settings = PrepareSettings(**{"segment_s": 1.0, "validation": 0.3, **options.pop("settings", {})})
    prepare(find_sources(inputs, options.pop("speaker_from", None), DatasetOptions()), out, settings, **options)
    return PreparedData.open(out)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recordings(tmp_path_factory.mktemp("audio"), [2.5, 1.0, 0.7, 3.0, 1.3])


@given(num_samples=strategies.integers(0, 5000), segment=strategies.integers(1, 700))
def test_every_sample_is_in_a_segment(num_samples: int, segment: int) -> None:
    pieces = cut(num_samples, segment)
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
    sides = split_keys(keys, 0.3, seed)
    assert set(sides.values()) == {"train", "validation"}
    assert sides == split_keys(sorted(keys), 0.3, seed)
    more = split_keys({*keys, "another one"}, 0.3, seed)
    assert sum(more[key] != side for key, side in sides.items()) <= 1


def test_split_without_validation_and_with_one_key() -> None:
    assert split_keys({"a"}, 0.0, 0) == {"a": "train"}
    with pytest.raises(DataError, match="--validation 0"):
        split_keys({"a"}, 0.1, 0)


def test_segments_hold_the_audio(audio: Path, tmp_path: Path) -> None:
    data = prepared([str(audio)], tmp_path / "data")
    assert (data.sample_rate, data.segment_samples, data.num_segments) == (RATE, RATE, 3 + 1 + 1 + 3 + 2)
    table = data.table().to_pylist()
    for segment, row in enumerate(table):
        original, _ = soundfile.read(audio / row["source"], dtype="float32")
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
def test_shards_and_threads_change_no_audio(audio: Path, tmp_path: Path, shard_s: int, threads: int) -> None:
    whole = prepared([str(audio)], tmp_path / "whole")
    data = prepared([str(audio)], tmp_path / "data", shard_samples=shard_s * RATE, threads=threads)
    assert len(data.manifest.shards) >= 8 // max(shard_s, 2) // 2
    assert all(shard.num_samples <= (max(shard_s, 2) + 1) * RATE for shard in data.manifest.shards)
    assert data.num_segments == whole.num_segments
    assert all(np.array_equal(data.samples(i), whole.samples(i)) for i in range(data.num_segments))


def test_long_recordings_go_through_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmcodec.training.data.shards._MEMORY_BYTES", 1000)
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


def test_bad_recordings_are_skipped_with_reasons_or_errors(audio: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(audio, tmp_path / "bad"))
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


def test_the_same_again_is_done_and_other_options_need_force(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    first = prepared([str(audio)], out)
    written = (out / "manifest.json").stat().st_mtime_ns
    assert prepared([str(audio)], out).fingerprint == first.fingerprint
    assert (out / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(OutputExistsError, match="--force"):
        prepared([str(audio)], out, settings={"segment_s": 0.5})
    other = prepared([str(audio)], out, settings={"segment_s": 0.5}, force=True)
    assert other.fingerprint != first.fingerprint
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="something else"):
            prepared([str(audio)], tmp_path / "mine", force=force)


def test_an_interrupted_run_goes_on(audio: Path, tmp_path: Path) -> None:
    sources = find_sources([str(audio)], None, DatasetOptions())
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
    whole = prepared([str(audio)], tmp_path / "whole", shard_samples=2 * RATE)
    assert PreparedData.open(out).fingerprint == whole.fingerprint


def test_a_killed_process_goes_on(audio: Path, tmp_path: Path) -> None:
    many = tmp_path / "many"
    for index in range(40):
        shutil.copytree(audio, many / f"{index:02d}")
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
def test_damaged_folders_are_refused(audio: Path, tmp_path: Path, spoil: Any, words: str) -> None:
    prepared([str(audio)], tmp_path / "data")
    spoil(tmp_path / "data")
    with pytest.raises(DataError, match=words):
        PreparedData.open(tmp_path / "data")


def test_newer_and_altered_manifests_are_refused(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepared([str(audio)], out)
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
        PreparedData.open(audio)


def test_altered_audio_is_found_by_verify(audio: Path, tmp_path: Path) -> None:
    data = prepared([str(audio)], tmp_path / "data")
    path = tmp_path / "data" / "audio" / "00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="altered"):
        data.verify()


def test_a_full_disk_leaves_no_half_folder(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(OutputError, match="No space left on device"):
            prepared([str(audio)], tmp_path / "data")
    assert not (tmp_path / "data" / "manifest.json").exists()
    prepared([str(audio)], tmp_path / "data").verify()


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


def test_features_are_read_on_the_codecs_grid(audio: Path, tmp_path: Path) -> None:
    store_features(prepared([str(audio)], tmp_path / "data"), "sm", 50.0)
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


def test_features_of_other_data_are_refused(audio: Path, tmp_path: Path) -> None:
    data = prepared([str(audio)], tmp_path / "data")
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
        prepared([str(audio)], tmp_path / "data", settings={"segment_s": 0.5}, force=True)


@given(frames=strategies.integers(0, 40), rate=strategies.floats(5, 200), wanted=strategies.integers(0, 60))
def test_grids_never_extrapolate(frames: int, rate: float, wanted: int) -> None:
    features = np.linspace(-1, 1, frames)[:, None].astype(np.float16).repeat(3, 1)
    for nearest in (False, True):
        found = on_grid(features, rate, wanted, 50.0, nearest)
        assert found.shape[1] == 3
        assert len(found) <= wanted
        if len(found):
            assert features.min() <= found.min()
            assert found.max() <= features.max()
            assert (np.diff(found[:, 0]) >= 0).all()


def test_given_transcripts(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("a.wav\tHello  there\nsub/b.wav\tBye\n")
    assert read_tsv(table) == {"a.wav": [Given("Hello there")], "sub/b.wav": [Given("Bye")]}
    table.write_text("a\t0.5\t1\tone\na\t1\t2\ttwo\n")
    assert read_tsv(table) == {"a": [Given("one", 0.5, 1.0), Given("two", 1.0, 2.0)]}
    table.write_text("\ufefftext\tduration\tfile\nyes\t3\ta\n", encoding="utf-8")
    assert read_tsv(table) == {"a": [Given("yes")]}
    assert find({"b": [Given("x")]}, "sub/b.wav") == [Given("x")]
    assert find({"c": [Given("x")]}, "sub/b.wav") is None
    for content, words in (
        ("", "no transcripts"),
        ("a\tb\tc\n", "3 columns"),
        ("a\t2\t1\tx\n", "no stretch"),
        ("a\tx\t1\tx\n", "seconds"),
        ("a\tnan\t1\tx\n", "no stretch"),
        ("a\tone\nb\n", "line 2"),
    ):
        table.write_text(content)
        with pytest.raises(DataError, match=words):
            read_tsv(table)
    table.write_bytes(b"a\t\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_tsv(table)
    with pytest.raises(InputNotFoundError):
        read_tsv(tmp_path / "none.tsv")


def test_a_dataset_folder_is_read(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    pa = pytest.importorskip("pyarrow")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import pyarrow.parquet

    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(audio.glob("*.wav"))]
    columns = {"audio": rows, "who": ["x", "x", "y", "y", "z"], "said": ["one", "two", "three", None, "five"]}
    features = {"audio": {"_type": "Audio"}, "who": {"_type": "Value", "dtype": "string"}}
    features["said"] = {"_type": "Value", "dtype": "string"}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (tmp_path / "set").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "set" / "train.parquet")
    name = f"hf:{tmp_path / 'set'}"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    options = DatasetOptions("train", "who", "said")
    prepare(find_sources([name], None, options), tmp_path / "data", PrepareSettings(segment_s=1.0, split_by="speaker"))
    data = PreparedData.open(tmp_path / "data")
    files = prepared([str(audio)], tmp_path / "files")
    assert data.fingerprint == files.fingerprint
    assert data.manifest.totals["speakers"] == 3
    assert read_given(tmp_path / "data")["02.wav"] == [Given("three")]
    for wrong, words in (
        (DatasetOptions("nope"), "can't be loaded"),
        (DatasetOptions("train", "age"), "no column 'age'"),
    ):
        with pytest.raises(DmcodecError, match=words):
            find_sources([name], None, wrong)
    with pytest.raises(InputNotFoundError, match="no such folder"):
        find_sources(["hf:/no/such/folder"], None, options)
    with pytest.raises(ArgumentError, match="alone"):
        find_sources([name, str(audio)], None, options)


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    for wrong in (str(tmp_path / "no.wav"), str(tmp_path), str(tmp_path / "*.wav")):
        with pytest.raises(InputNotFoundError):
            find_sources([wrong], None, DatasetOptions())
    with pytest.raises(ArgumentError, match="--speaker-column"):
        find_sources([str(tmp_path)], None, DatasetOptions(speaker_column="who"))


def test_help_of_train_imports_nothing_heavy() -> None:
    code = """
import sys
from dmcodec.cli import main
sys.argv = ["dmcodec", "train", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "transformers", "datasets", "pyarrow", "numpy", "soundfile"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "prepare" in done.stdout
    assert "teach" in done.stdout


def test_the_command(audio: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*DMCODEC, "train", "prepare", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    table = tmp_path / "t.tsv"
    table.write_text("00\tsome words\n")
    done = run(audio / "*.wav", "--out", tmp_path / "data", "--json", "--transcripts", table, "--segment", 1)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["segments"] == PreparedData.open(tmp_path / "data").num_segments
    assert Manifest.read(tmp_path / "data").fingerprint == result["fingerprint"]
    assert read_given(tmp_path / "data") == {"00": [Given("some words")]}
    for exit_code, words, arguments in (
        (1, "no such file", (tmp_path / "none", "--out", tmp_path / "x")),
        (2, "--segment", (audio, "--out", tmp_path / "x", "--segment", 0)),
        (2, "--split-by", (audio, "--out", tmp_path / "x", "--split-by", "moon")),
        (2, "--threads", (audio, "--out", tmp_path / "x", "--threads", 0)),
        (1, "--force", (audio, "--out", tmp_path / "data", "--segment", 2)),
        (1, "3 columns", (audio, "--out", tmp_path / "x", "--transcripts", _written(tmp_path / "bad.tsv", "a\tb\tc"))),
        (2, "none of the recordings", (audio, "--out", tmp_path / "x", "--transcripts", _written(table, "zz\tb"))),
    ):
        done = run(*arguments)
        assert done.returncode == exit_code, done.stderr
        assert words in done.stderr
        assert done.stderr.count("error: ") == 1


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
