"""What `train prepare` reads: recordings, transcripts, data sets, and its command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recordings import prepared

from dmcodec.audio_sources import DatasetOptions, find_sources
from dmcodec.errors import ArgumentError, DataError, DmcodecError, InputNotFoundError
from dmcodec.training.data import PreparedData
from dmcodec.training.data.given_transcripts import match_transcripts, read_given_transcripts, read_tsv
from dmcodec.training.data.layout import Manifest
from dmcodec.training.data.prepare import PrepareSettings, prepare
from dmcodec.transcripts import TextSpan

DMCODEC = [sys.executable, "-m", "dmcodec"]


def test_given_transcripts(tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    table.write_text("a.wav\tHello  there\nsub/b.wav\tBye\n")
    assert read_tsv(table) == {"a.wav": [TextSpan("Hello there")], "sub/b.wav": [TextSpan("Bye")]}
    table.write_text("a\t0.5\t1\tone\na\t1\t2\ttwo\n")
    assert read_tsv(table) == {"a": [TextSpan("one", 0.5, 1.0), TextSpan("two", 1.0, 2.0)]}
    table.write_text("\ufefftext\tduration\tfile\nyes\t3\ta\n", encoding="utf-8")
    assert read_tsv(table) == {"a": [TextSpan("yes")]}
    assert match_transcripts({"b": [TextSpan("x")]}, ["sub/b.wav"], table) == {"sub/b.wav": [TextSpan("x")]}
    assert match_transcripts({"c": [TextSpan("x")]}, ["sub/b.wav"], table) == {}
    for content, words in (
        ("", "no transcripts"),
        ("a\tb\tc\n", "3 columns"),
        ("a\t2\t1\tx\n", "no interval"),
        ("a\tx\t1\tx\n", "seconds"),
        ("a\tnan\t1\tx\n", "no interval"),
        ("a\tone\nb\n", "line 2"),
        ("a\tone\na\ttwo\n", "line 2 names a a second time"),
    ):
        table.write_text(content)
        with pytest.raises(DataError, match=words):
            read_tsv(table)
    table.write_bytes(b"a\t\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_tsv(table)
    with pytest.raises(InputNotFoundError):
        read_tsv(tmp_path / "none.tsv")


def test_a_dataset_folder_is_read(noise_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    pa = pytest.importorskip("pyarrow")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import pyarrow.parquet

    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(noise_recordings.glob("*.wav"))]
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
    files = prepared([str(noise_recordings)], tmp_path / "files")
    assert data.fingerprint == files.fingerprint
    assert data.manifest.totals["speakers"] == 3
    assert read_given_transcripts(tmp_path / "data")["02.wav"] == [TextSpan("three")]
    for wrong, words in (
        (DatasetOptions("nope"), "can't be loaded"),
        (DatasetOptions("train", "age"), "no column 'age'"),
    ):
        with pytest.raises(DmcodecError, match=words):
            find_sources([name], None, wrong)
    with pytest.raises(InputNotFoundError, match="no such folder"):
        find_sources(["hf:/no/such/folder"], None, options)
    with pytest.raises(ArgumentError, match="alone"):
        find_sources([name, str(noise_recordings)], None, options)


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


def test_the_command(noise_recordings: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*DMCODEC, "train", "prepare", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    table = tmp_path / "t.tsv"
    table.write_text("00\tsome words\n")
    done = run(noise_recordings / "*.wav", "--out", tmp_path / "data", "--json", "--transcripts", table, "--segment", 1)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["segments"] == PreparedData.open(tmp_path / "data").num_segments
    assert Manifest.read(tmp_path / "data").fingerprint == result["fingerprint"]
    assert read_given_transcripts(tmp_path / "data") == {"00.wav": [TextSpan("some words")]}
    for exit_code, words, arguments in (
        (1, "no such file", (tmp_path / "none", "--out", tmp_path / "x")),
        (2, "--segment", (noise_recordings, "--out", tmp_path / "x", "--segment", 0)),
        (2, "--split-by", (noise_recordings, "--out", tmp_path / "x", "--split-by", "moon")),
        (2, "--threads", (noise_recordings, "--out", tmp_path / "x", "--threads", 0)),
        (1, "--force", (noise_recordings, "--out", tmp_path / "data", "--segment", 2)),
        (
            1,
            "3 columns",
            (noise_recordings, "--out", tmp_path / "x", "--transcripts", _written(tmp_path / "bad.tsv", "a\tb\tc")),
        ),
        (
            2,
            "none of the recordings",
            (noise_recordings, "--out", tmp_path / "x", "--transcripts", _written(table, "zz\tb")),
        ),
    ):
        done = run(*arguments)
        assert done.returncode == exit_code, done.stderr
        assert words in done.stderr
        assert done.stderr.count("error: ") == 1


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_names_are_relative_to_all_that_was_named(noise_recordings: Path, tmp_path: Path) -> None:
    """A folder named beside the one that holds it doesn't shorten the names of its files."""
    inner = tmp_path / "outer" / "inner"
    shutil.copytree(noise_recordings, inner)
    both = find_sources([str(inner.parent), str(inner)], None, DatasetOptions())
    assert [both.get(index).name for index in range(both.count)] == [f"inner/{index:02d}.wav" for index in range(5)]
