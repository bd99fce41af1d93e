"""A text belongs to the recording that its table or row names, and to no other one."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dmcodec import audio_sources
from dmcodec.audio_sources import DatasetOptions, find_sources
from dmcodec.errors import DataError
from dmcodec.row_names import audio_paths, row_names
from dmcodec.training.data.given_transcripts import match_transcripts, read_given_transcripts, read_tsv
from dmcodec.training.data.prepare import PrepareSettings, prepare
from dmcodec.transcripts import TextSpan

NFC = unicodedata.normalize("NFC", "caf\u00e9.wav")
NFD = unicodedata.normalize("NFD", NFC)


def matched(names: list[str], sources: list[str]) -> dict[str, str]:
    """The recordings that names of a table belong to: {recording: name}."""
    table = {name: [TextSpan(name)] for name in names}
    return {source: spans[0].text for source, spans in match_transcripts(table, sources, "t.tsv").items()}


@pytest.mark.parametrize(
    ("name", "sources", "source"),
    [
        ("a/001.wav", ["a/001.wav", "b/001.wav"], "a/001.wav"),
        ("a/001", ["a/001.wav", "b/001.wav"], "a/001.wav"),
        ("001", ["a/001.wav", "b/002.wav"], "a/001.wav"),
        ("001.wav", ["a/001.wav", "b/001.flac"], "a/001.wav"),
        ("a.wav", ["a.wav", "a.flac"], "a.wav"),
        ("A.wav", ["a.wav", "A.wav"], "A.wav"),
        ("./a/001.wav", ["a/001.wav"], "a/001.wav"),
        ("a\\001.wav", ["a/001.wav", "b/001.wav"], "a/001.wav"),
        (NFC, [f"x/{NFD}"], f"x/{NFD}"),
        (NFC, [NFC, NFD], NFC),
        (NFD, [NFC, NFD], NFD),
        ("1.5", ["1.5", "1.6"], "1.5"),
        ("a", ["b.wav"], None),
        ("A", ["a.wav"], None),
    ],
)
def test_a_name_is_that_of_one_recording(name: str, sources: list[str], source: str | None) -> None:
    assert matched([name], sources) == ({source: name} if source else {})


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("001", ["a/001.wav", "b/001.wav"]),
        ("001.wav", ["a/001.wav", "b/001.wav"]),
        ("a", ["a.wav", "a.flac"]),
        (NFC, [f"x/{NFD}", f"y/{NFC}", f"z/{NFC}"]),
        ("1", ["1.5", "1.6"]),
    ],
)
def test_a_name_of_two_recordings_is_refused_with_both(name: str, sources: list[str]) -> None:
    with pytest.raises(DataError, match=r"t\.tsv: .* could be .* or .*; name recordings by their whole path"):
        matched([name], sources)


def test_two_names_of_one_recording_are_refused() -> None:
    with pytest.raises(DataError, match=r"'001' and 'a/001\.wav' are both a/001\.wav"):
        matched(["001", "a/001.wav"], ["a/001.wav"])


def test_tables_with_a_byte_order_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "t.tsv").write_text("file\ttext\na.wav\tGr\u00fc\u00dfe\n", encoding=encoding)
        assert read_tsv(tmp_path / "t.tsv") == {"a.wav": [TextSpan("Gr\u00fc\u00dfe")]}


def test_prepared_data_hold_whole_names(tmp_path: Path) -> None:
    for speaker in "ab":
        noise = np.random.default_rng(ord(speaker)).normal(0, 0.1, 16000)
        (tmp_path / "audio" / speaker).mkdir(parents=True)
        soundfile.write(tmp_path / "audio" / speaker / f"{speaker}.wav", noise, 16000)
    sources = find_sources([str(tmp_path / "audio")], None, DatasetOptions())
    prepare(sources, tmp_path / "data", PrepareSettings(validation=0.5), {"a": [TextSpan("one")]})
    assert read_given_transcripts(tmp_path / "data") == {"a/a.wav": [TextSpan("one")]}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["spk0/001.wav", "spk1/001.wav"], ["spk0/001.wav", "spk1/001.wav"]),
        (["001.wav", "002.wav", "001.wav"], ["001.wav#000000000", "002.wav", "001.wav#000000002"]),
        ([None, "", "a.wav"], ["row000000000", "row000000001", "a.wav"]),
        (["a.wav", "A.wav", "a.flac"], ["a.wav", "A.wav", "a.flac"]),
        ([NFC, NFD], [NFC, NFD]),
        (["a", "a", "a#000000000"], ["a#000000000_", "a#000000001", "a#000000000"]),
    ],
)
def test_rows_have_different_names(paths: list[str | None], names: list[str]) -> None:
    assert row_names(paths) == names
    assert len(set(row_names(paths))) == len(paths)


def test_names_of_rows_do_not_depend_on_the_machines_folders(tmp_path: Path) -> None:
    paths = [str(tmp_path / "cache" / name) for name in ("a/001.wav", "b/001.wav")]
    assert row_names(paths) == ["a/001.wav", "b/001.wav"]


def test_paths_of_a_dataset_are_read_without_its_audio() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"audio": [{"path": f"{i}/x.wav", "bytes": b"none"} for i in range(4)]})
    assert audio_paths(rows, "audio") == ["0/x.wav", "1/x.wav", "2/x.wav", "3/x.wav"]
    assert audio_paths(rows.select([3, 1]), "audio") == ["3/x.wav", "1/x.wav"]


def test_the_texts_of_rows_with_the_same_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In folders of speakers, and (as in many Parquet files) without any folder."""

    def wav(seed: int) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, 16000), 16000, format="WAV")
        return file.getvalue()

    class Rows(list[dict[str, object]]):
        _fingerprint = "x"

    paths = ["spk0/001.wav", "spk1/001.wav", "001.wav", "001.wav"]
    rows = Rows({"audio": {"bytes": wav(k), "path": path}, "text": f"text {k}"} for k, path in enumerate(paths))
    monkeypatch.setattr(audio_sources, "_load_dataset", lambda _name, _options: (rows, "audio"))
    sources = find_sources(["hf:x"], None, DatasetOptions(text_column="text"))
    manifest = prepare(sources, tmp_path / "data", PrepareSettings(validation=0.3))
    assert manifest.totals["files"] == 4
    given = read_given_transcripts(tmp_path / "data")
    assert {name: [span.text for span in spans] for name, spans in given.items()} == {
        "spk0/001.wav": ["text 0"],
        "spk1/001.wav": ["text 1"],
        "001.wav#000000002": ["text 2"],
        "001.wav#000000003": ["text 3"],
    }
