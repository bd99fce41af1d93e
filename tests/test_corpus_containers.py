"""Clips in tars, Parquet files and Hugging Face datasets: what is listed, and what is read of each clip."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from corpora import run, write_clip
from corpora import table as corpus_rows

from dmcodec.audio import read_audio
from dmcodec.errors import ArgumentError, AudioError, DataError, DmcodecError, InputNotFoundError
from dmcodec.runtime import Codec
from dmcodec.runtime.corpus import tables
from dmcodec.runtime.corpus.items import Item, Source
from dmcodec.runtime.corpus.opening import Readers
from dmcodec.runtime.corpus.sources.containers import ContainersSource, TableOptions
from dmcodec.runtime.corpus.sources.datasets import DatasetSource
from dmcodec.runtime.corpus.sources.find import find_corpus
from dmcodec.runtime.corpus.sources.parquet import ParquetSource
from dmcodec.runtime.corpus.sources.tar import TarSource

AUDIO_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def clip(number: int, suffix: str = "wav") -> bytes:
    """Return a short recording of its own length, whose samples are its number."""
    file = io.BytesIO()
    soundfile.write(file, np.full(800 + number, number / 100, np.float32), 16000, format=suffix.upper())
    return file.getvalue()


def numbers(source: Source) -> dict[str, int]:
    """Read all clips of a source; return the number of each by its id."""
    readers, found = Readers(), {}
    for item in source.items():
        readers.refuse_changed(item)
        with readers.opened(item) as audio:
            samples, rate = read_audio(audio)
        number = samples.shape[1] - 800
        assert rate == 16000
        np.testing.assert_allclose(samples, number / 100, atol=1e-4)
        found[item.id] = number
    readers.close()
    return found


def tar_bytes(members: Sequence[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


MEMBERS = [
    ("./a/one.flac", clip(1, "flac")), ("./a/one.json", b'{"speaker": "x", "id": 7, "duration": 0.05, "tags": ["u"]}'),
    ("./a/one.txt", b" said \n"), ("a/two.mic.wav", clip(2)), ("a/two.far.wav", clip(3)), ("a/three.jpg", b"no audio"),
    ("a/.hidden.wav", b""), ("README", b"text"), ("b.wav", clip(4)), ("b.json", b"[1]"),
]  # fmt: skip


def test_tar_members_are_clips_with_what_their_key_tells(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(tar_bytes(MEMBERS))
    source = TarSource(str(path), "in/t.tar")
    items = list(source.items())
    names = ["a/one.flac", "a/two.mic.wav", "a/two.far.wav", "b.wav"]
    assert [item.id for item in items] == [f"in/t.tar/{name}" for name in names]
    assert items[0].columns == {"speaker": "x", "source_id": 7, "duration": 0.05, "tags": '["u"]', "text": "said"}
    assert (items[0].audio_s, items[0].size_bytes) == (0.05, len(MEMBERS[0][1]))
    assert [dict(item.columns) for item in items[1:]] == [{}, {}, {}]
    assert items[0].source == f"{path}#./a/one.flac"
    assert list(numbers(source).values()) == [1, 2, 3, 4]
    assert sorted(tmp_path.iterdir()) == [path]
    assert [Item.from_json(item.to_json()) for item in items] == items


def test_tars_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tar_bytes(MEMBERS)
    with fsspec.open("memory://tars/sub/t.tar", "wb") as file:
        file.write(data)
    for limit in (64 << 20, 0):  # a member is fetched, or read in parts
        monkeypatch.setattr("dmcodec.runtime.corpus.remote_files.FETCHED_BYTES", limit)
        found = numbers(ContainersSource(["memory://tars"], TableOptions()))
        assert list(found.values()) == [1, 2, 3, 4]
        assert next(iter(found)) == "sub/t.tar/a/one.flac"
    (tmp_path / "t.tar").write_bytes(data)
    assert list(numbers(TarSource(f"file://{tmp_path}/t.tar", "t.tar")).values()) == [1, 2, 3, 4]


def test_a_tar_that_changed_or_went_away(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(tar_bytes(MEMBERS))
    (item, *_) = TarSource(str(path), "t.tar").items()
    path.write_bytes(tar_bytes(MEMBERS[3:]))
    with pytest.raises(AudioError, match=r"t\.tar#\./a/one\.flac: was changed"):
        Readers().refuse_changed(item)
    path.unlink()
    with pytest.raises(AudioError, match="no such tar file"), Readers().opened(item):
        pass


WHOLE = tar_bytes(MEMBERS)
BAD_TARS: Mapping[str, tuple[bytes, type[DmcodecError], str]] = {
    "gzip": (gzip.compress(WHOLE), DataError, r"is compressed \(gzip\)"),
    "cut short in a member": (WHOLE[:600], InputNotFoundError, "can't be read as a tar file"),
    "cut short in a header": (
        WHOLE[: WHOLE.index(b"./a/one.json") + 200],
        InputNotFoundError,
        "is damaged or cut short",
    ),
    "a damaged header": (
        WHOLE.replace(b"./a/one.json", b"./a/two.json"),
        InputNotFoundError,
        "is damaged or cut short after byte",
    ),
    "no tar": (b"x" * 2000, InputNotFoundError, "can't be read as a tar file"),
    "empty": (b"", InputNotFoundError, "can't be read as a tar file"),
    "no audio": (tar_bytes([("a.jpg", b"x")]), InputNotFoundError, "holds no audio"),
    "bad JSON": (tar_bytes([("a.wav", clip(1)), ("a.json", b"{")]), DataError, r"#a\.json: is not JSON"),
}


@pytest.mark.parametrize("kind", BAD_TARS)
def test_tars_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    data, error, words = BAD_TARS[kind]
    path = tmp_path / "t.tar"
    path.write_bytes(data)
    with pytest.raises(error, match=words) as found:
        list(TarSource(str(path), "t.tar").items())
    assert str(path) in str(found.value)


def table(rows: Sequence[int], **columns: Any) -> pa.Table:
    audio = pa.array([{"bytes": clip(number), "path": f"p{number}.wav"} for number in rows], AUDIO_TYPE)
    return pa.table({"audio": audio, **columns})


def test_parquet_rows_are_clips(tmp_path: Path) -> None:
    rows = list(range(10, 35))
    columns = {
        "id": [f"u{row}" for row in rows], "n": rows, "words": pa.array([["a"]] * 25), "duration_s": [0.5] * 25,
        "kind": pa.array(["x", "y"] * 12 + ["x"]).dictionary_encode(),
    }  # fmt: skip
    path = tmp_path / "in" / "t.parquet"
    path.parent.mkdir()
    pq.write_table(table(rows, **columns), path, row_group_size=7)
    source = ContainersSource([str(path.parent)], TableOptions())
    items = list(source.items())
    assert items[3].columns == {"n": 13, "source_duration_s": 0.5, "kind": "y"}
    assert (items[3].audio_s, items[3].source) == (0.5, f"{path}#3")
    assert all(item.size_bytes > 500 for item in items)
    assert numbers(source) == {f"u{row}": row for row in rows}
    assert [Item.from_json(item.to_json()) for item in items] == items


@pytest.mark.parametrize("block_bytes", [1, 4000, 1 << 30])
def test_parquet_rows_in_any_order(block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read by blocks of a row group; a few are kept."""
    monkeypatch.setattr(tables, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(tables, "_KEPT_BYTES", 6000)
    pq.write_table(table(range(20)), tmp_path / "t.parquet", row_group_size=8)
    items = list(ParquetSource(str(tmp_path / "t.parquet"), "t.parquet").items())
    readers = Readers()
    for row in (0, 3, 1, 2, 19, 7, 8, 18, 0, 15, 16, 5):
        with readers.opened(items[row]) as audio:
            assert read_audio(audio)[0].shape[1] == 800 + row


def test_ids_of_parquet_rows_without_an_id(tmp_path: Path) -> None:
    audio = pa.array([{"bytes": clip(1), "path": "x.wav"}, {"bytes": clip(2), "path": None}, None], AUDIO_TYPE)
    pq.write_table(pa.table({"audio": audio}), tmp_path / "t.parquet")
    items = list(ParquetSource(str(tmp_path / "t.parquet"), "in/t.parquet").items())
    assert [item.id for item in items] == ["x.wav", "in/t.parquet/row000000001", "in/t.parquet/row000000002"]
    with pytest.raises(AudioError, match="#2: the row holds no audio"), Readers().opened(items[2]):
        pass


def test_parquet_with_paths_only_and_with_bytes_only(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "a.wav").write_bytes(clip(5))
    by_path = pa.array([{"bytes": None, "path": "wavs/a.wav"}], AUDIO_TYPE)
    pq.write_table(pa.table({"audio": by_path}), tmp_path / "p.parquet")
    assert numbers(ParquetSource(str(tmp_path / "p.parquet"), "p.parquet")) == {"wavs/a.wav": 5}
    pq.write_table(pa.table({"sound": [clip(6)], "x": [1]}), tmp_path / "b.parquet")
    with fsspec.open("memory://tables/b.parquet", "wb") as file:
        file.write((tmp_path / "b.parquet").read_bytes())
    local, remote = str(tmp_path / "b.parquet"), "memory://tables/*.parquet"
    for source in (ParquetSource(local, "b.parquet"), ContainersSource([remote], TableOptions())):
        ((clip_id, number),) = numbers(source).items()
        assert clip_id.endswith("b.parquet/row000000000")
        assert number == 6


def test_parquet_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"

    def refused(error: type[DmcodecError], words: str, content: pa.Table | bytes, column: str | None = None) -> None:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(content, path)
        with pytest.raises(error, match=words) as found:
            list(ParquetSource(str(path), "t.parquet", column).items())
        assert str(path) in str(found.value)

    refused(InputNotFoundError, "can't be read as a Parquet file", b"no table")
    refused(InputNotFoundError, "has no rows", table([]))
    refused(DataError, "row 1 has no id", table([1, 2], id=["a", None]))
    refused(ArgumentError, "has no column of audio .*only text", pa.table({"text": ["a"]}))
    two = pa.table({"left": table([1])["audio"], "right": table([1])["audio"]})
    refused(ArgumentError, "several columns of audio; name one with --audio-column: left, right", two)
    refused(ArgumentError, "has no column of audio 'middle', only left, right", two, "middle")
    path.unlink()
    with pytest.raises(InputNotFoundError, match="no such"):
        list(ParquetSource(str(path), "t.parquet").items())


def test_several_containers_have_names_from_their_common_folder_on(tmp_path: Path) -> None:
    for name in ("x/a.tar", "y/a.tar"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(tar_bytes([("k.wav", clip(1))]))
    source = ContainersSource([str(tmp_path / "y" / "a.tar"), str(tmp_path / "x" / "*.tar")], TableOptions())
    assert [item.id for item in source.items()] == ["x/a.tar/k.wav", "y/a.tar/k.wav"]
    with pytest.raises(InputNotFoundError):
        list(ContainersSource([str(tmp_path / "z.tar")], TableOptions()).items())


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    module.disable_progress_bars()
    return module


def test_saved_datasets_are_read_as_they_are(datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"audio": {"bytes": clip(n), "path": f"{n}.wav"}, "who": f"s{n}", "n_q": n, "age": [n]} for n in range(6)]
    whole = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"dev": whole.select([4, 2])}).save_to_disk(str(tmp_path / "two"))
    source = DatasetSource(f"hf:{tmp_path / 'one'}")
    items = list(source.items())
    assert items[2].columns == {"who": "s2", "source_n_q": 2}
    assert items[2].size_bytes == len(clip(2))
    assert items[2].source == f"hf:{tmp_path / 'one'}@train#2"
    monkeypatch.chdir(tmp_path)
    assert list(DatasetSource("one").items()) == items
    assert numbers(source) == {f"{n}.wav": n for n in range(6)}
    assert numbers(DatasetSource(str(tmp_path / "two"), "dev")) == {"4.wav": 4, "2.wav": 2}
    with pytest.raises(InputNotFoundError, match="no such split, only dev"):
        list(DatasetSource(str(tmp_path / "two")).items())
    with pytest.raises(ArgumentError, match="no column of audio 'sound', only audio"):
        list(DatasetSource(str(tmp_path / "one"), audio_column="sound").items())
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(InputNotFoundError, match="damaged"):
        list(source.items())


def test_datasets_by_name_and_on_other_file_systems(datasets: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.wav").write_bytes(clip(1))
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.wav", "id": 12}) + "\n")
    assert numbers(DatasetSource(f"hf:{folder}")) == {"12": 1}
    saved = datasets.Dataset.from_list([{"audio": {"bytes": clip(3), "path": "c.wav"}}])
    saved.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "saved").iterdir():
        with fsspec.open(f"memory://saved/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    assert numbers(DatasetSource("hf:memory://saved")) == {"c.wav": 3}
    with pytest.raises(InputNotFoundError, match="no folder of `save_to_disk`"):
        list(DatasetSource("hf:memory://nothing").items())


def test_a_corpus_of_all_containers_has_the_tokens_of_its_clips(datasets: Any, tmp_path: Path) -> None:
    clips = [(write_clip(tmp_path / f"{n}.wav", 0.2 + n / 10, start=n)).read_bytes() for n in range(4)]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "t.tar").write_bytes(
        tar_bytes([("a.wav", clips[0]), ("a.txt", b"hello"), ("b.wav", b"no audio")])
    )
    audio = pa.array([{"bytes": clips[1], "path": "p.wav"}], AUDIO_TYPE)
    pq.write_table(pa.table({"audio": audio, "id": [7], "text": ["row"]}), tmp_path / "in" / "t.parquet")
    saved = datasets.Dataset.from_list([{"audio": {"bytes": clips[2], "path": "q.wav"}, "text": "set"}])
    saved.cast_column("audio", datasets.Audio(decode=False)).save_to_disk(str(tmp_path / "saved"))
    inputs = [tmp_path / "saved", tmp_path / "in", tmp_path / "3.wav"]
    summary = run(inputs, tmp_path / "out")
    assert [failure.id for failure in summary.failures] == ["t.tar/b.wav"]
    assert "t.tar#b.wav: can't be read as audio" in summary.failures[0].reason
    rows = corpus_rows(tmp_path / "out").to_pylist()
    assert {row["id"]: row["text"] for row in rows} == {
        "3.wav": None,
        "7": "row",
        "t.tar/a.wav": "hello",
        "q.wav": "set",
    }
    codec = Codec.load(threads=1)
    for clip_id, number in {"t.tar/a.wav": 0, "7": 1, "q.wav": 2, "3.wav": 3}.items():
        codes = next(row["codes"] for row in rows if row["id"] == clip_id)
        assert codes == codec.encode_file(tmp_path / f"{number}.wav").codes.tolist()
    again = run(inputs, tmp_path / "out")
    assert again.clips == 4, "listed again, it is the same corpus"


def test_a_folder_of_audio_may_hold_tables_of_other_things(tmp_path: Path) -> None:
    write_clip(tmp_path / "in" / "a.wav", 0.2)
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "in" / "about.parquet")
    assert [item.id for item in find_corpus([str(tmp_path / "in")]).items()] == ["a.wav"]
    (tmp_path / "in" / "a.wav").unlink()
    with pytest.raises(ArgumentError, match="has no column of audio"):
        list(find_corpus([str(tmp_path / "in")]).items())
