"""The formats of a corpus beside Parquet: Megatron's indexed dataset, WebDataset tars, and folders of token files."""

from __future__ import annotations

import io
import json
import re
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import run, table, write_corpus
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dmcodec.errors import (
    ArgumentError,
    DataError,
    DmcodecError,
    InputNotFoundError,
    OutputError,
    OutputExistsError,
)
from dmcodec.layouts import TokenLayout
from dmcodec.runtime import Codec
from dmcodec.runtime.corpus.outputs import FORMATS, dmc, indexed
from dmcodec.runtime.corpus.outputs.indexed import IndexedWriter, ids_dtype, read_indexed
from dmcodec.runtime.corpus.outputs.names import clip_name
from dmcodec.runtime.corpus.outputs.writer import Row, WriterSettings
from dmcodec.tokens import Tokens

MODEL = "0123456789abcdef"
SETTINGS = WriterSettings(MODEL, "fp32", 16000, 320, 4, 2, {"speaker": "string", "snr": "double"})
IDS = ["a/b.wav", "a/b/c.wav", "b.wav", "../x", "/abs//y/", "ä ö", "a" * 300 + ".wav", "a%2Fb"]


def rows(count: int = len(IDS), settings: WriterSettings = SETTINGS) -> list[Row]:
    """Return clips of 0 to `count` - 1 frames and a bit."""
    generator = np.random.default_rng(3)
    found = []
    for index, clip_id in enumerate(IDS[:count]):
        frames = index + 1
        codes = generator.integers(0, settings.codebook_size, (settings.n_q, frames)).astype(np.uint16)
        columns: dict[str, Any] = {
            "speaker": None if index == 1 else f"s{index}",
            "snr": float("nan") if index == 2 else 1.5,
        }
        found.append(Row(clip_id, codes, frames * 320 - 7, 16000, 0, columns))
    return found


def written(name: str, folder: Path, clips: Sequence[Row], settings: WriterSettings = SETTINGS) -> list[Path]:
    """Write a shard, and check it as `run_shard` does."""
    form = FORMATS[name]
    paths = [folder / f"shard{suffix}" for suffix in form.suffixes]
    folder.mkdir(parents=True, exist_ok=True)
    for path, suffix in zip(paths, form.suffixes, strict=True):
        if not suffix:
            path.mkdir()
    writer = form.open(settings, paths)
    try:
        for row in clips:
            writer.write(row)
        writer.close()
    except BaseException:
        writer.abort()
        raise
    contents = form.check(settings, paths)
    assert (contents.clips, contents.codes) == (len(clips), sum(row.codes.size for row in clips))
    return paths


def read_megatron(ids: Path, index: Path) -> tuple[np.dtype[Any], list[NDArray[Any]], NDArray[Any]]:
    """An independent reader, from the definition in Megatron-LM's indexed_dataset.py: types by their numbers there."""
    types: dict[int, Any] = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
    data = index.read_bytes()
    assert data[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack_from("<Q", data, 9) == (1,)
    (code,) = struct.unpack_from("<B", data, 17)
    sequences, documents = struct.unpack_from("<QQ", data, 18)
    dtype = np.dtype(types[code])
    position = 34
    lengths = np.frombuffer(data, np.int32, sequences, position)
    pointers = np.frombuffer(data, np.int64, sequences, position + lengths.nbytes)
    ends = np.frombuffer(data, np.int64, documents, position + lengths.nbytes + pointers.nbytes)
    assert len(data) == position + lengths.nbytes + pointers.nbytes + ends.nbytes
    stored = ids.read_bytes()
    assert len(stored) == int(lengths.sum()) * dtype.itemsize
    return dtype, [np.frombuffer(stored, dtype, n, at) for n, at in zip(lengths, pointers, strict=True)], ends


def test_megatron_files_byte_by_byte(tmp_path: Path) -> None:
    """Two clips of two levels of four codes, worked out by hand: the ids of level 1 begin at 4."""
    clips = [
        Row("x", np.array([[0, 1], [2, 3]], np.uint16), 640, 16000, 0, {}),
        Row("y", np.array([[3], [0]], np.uint16), 10, 16000, 0, {}),
    ]
    settings = replace(SETTINGS, columns={})
    ids, index, lines, layout = written("megatron", tmp_path, clips, settings)
    assert ids.read_bytes() == bytes([0, 0, 6, 0, 1, 0, 7, 0, 3, 0, 4, 0])
    head = b"MMIDIDX\0\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0])
    numbers = [(4, 4), (2, 4), (0, 8), (8, 8), (0, 8), (1, 8), (2, 8)]
    assert index.read_bytes() == head + b"".join(value.to_bytes(size, "little") for value, size in numbers)
    assert [json.loads(line)["id"] for line in lines.read_bytes().splitlines()] == ["x", "y"]
    assert TokenLayout.load(layout).model_id == MODEL


@pytest.mark.parametrize(("codebook_size", "levels", "dtype"), [(1024, 8, "u2"), (8187, 8, "u2"), (8188, 8, "i4")])
def test_megatron_ids_become_the_codes_again(codebook_size: int, levels: int, dtype: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, codebook_size=codebook_size, n_q=levels)
    clips = rows(settings=settings)
    ids, index, lines, layout_file = written("megatron", tmp_path, clips, settings)
    found_dtype, sequences, documents = read_megatron(ids, index)
    assert found_dtype == np.dtype(f"<{dtype}")
    assert documents.tolist() == list(range(len(clips) + 1))
    layout = TokenLayout.load(layout_file)
    for row, sequence, line in zip(clips, sequences, lines.read_bytes().splitlines(), strict=True):
        assert np.array_equal(layout.codes(sequence.astype(np.int64)), row.codes)
        told = json.loads(line)
        assert (told["id"], told["num_samples"], told["columns"]["speaker"]) == (
            row.id, row.num_samples, row.columns["speaker"],
        )  # fmt: skip


def test_an_index_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    ids, index, *_ = written("megatron", tmp_path, rows())
    whole_ids, whole_index = ids.read_bytes(), index.read_bytes()
    for wrong_ids, wrong_index in (
        (whole_ids[:-1], whole_index),
        (whole_ids + b"\0", whole_index),
        (whole_ids, whole_index[:-1]),
        (whole_ids, b""),
        (whole_ids, whole_index[:9] + b"\2" + whole_index[10:]),  # version
        (whole_ids, whole_index[:17] + b"\7" + whole_index[18:]),  # type
    ):
        ids.write_bytes(wrong_ids)
        index.write_bytes(wrong_index)
        with pytest.raises(DataError):
            list(read_indexed(ids, index))


def test_a_clip_that_is_too_long_for_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexed, "_MOST_IDS", 3)
    writer = IndexedWriter(io.BytesIO(), ids_dtype(8))
    writer.write(np.zeros(3, np.int64))
    with pytest.raises(OutputError, match="a clip of 4 ids is too long"):
        writer.write(np.zeros(4, np.int64))


# As readers of WebDataset split names: the key ends at the first dot after the last slash.
KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def test_webdataset_samples_hold_codes_and_all_else(tmp_path: Path) -> None:
    clips = rows()
    (path,) = written("webdataset", tmp_path, clips)
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            match = KEY.match(member.name)
            assert match is not None
            file = tar.extractfile(member)
            assert file is not None
            samples.setdefault(match[1], {})[match[2]] = file.read()
    assert len(samples) == len(clips)
    for row, (key, parts) in zip(clips, samples.items(), strict=True):
        assert key == clip_name(row.id)
        codes = np.load(io.BytesIO(parts["npy"]))
        assert (codes.dtype, codes.flags.c_contiguous) == (np.dtype("<u2"), True)
        facts = json.loads(parts["json"])
        assert facts["id"] == row.id
        assert facts["columns"] == {"speaker": row.columns["speaker"], "snr": None if row.id == "b.wav" else 1.5}
        tokens = Tokens(
            codes, facts["num_samples"], facts["sample_rate"], facts["hop_length"], facts["codebook_size"],
            facts["model_id"], facts["first_level"],
        )  # fmt: skip
        assert np.array_equal(tokens.codes, row.codes)


def test_dmc_folders_hold_token_files_and_their_list(tmp_path: Path) -> None:
    clips = rows()
    (folder,) = written("dmc", tmp_path, clips)
    lines = [json.loads(line) for line in (folder / "clips.jsonl").read_bytes().splitlines()]
    assert [line["id"] for line in lines] == IDS
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.dmc")}
    assert {line["file"] for line in lines} == files
    for row, line in zip(clips, lines, strict=True):
        tokens = Tokens.load(folder / line["file"])
        assert (tokens.model_id, tokens.num_samples) == (MODEL, row.num_samples)
        assert np.array_equal(tokens.codes, row.codes)


def test_ids_that_a_file_system_takes_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmc, "clip_name", lambda clip_id: clip_name(clip_id).lower())
    clips = [replace(rows(1)[0], id=clip_id) for clip_id in ("A", "a")]
    with pytest.raises(OutputError, match="capitals"):
        written("dmc", tmp_path, clips)


@pytest.mark.parametrize("name", FORMATS)
def test_equal_rows_give_equal_bytes_wherever_and_whenever(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(name, tmp_path / "one", rows())
    monkeypatch.setattr("time.time", lambda: 1e9)
    monkeypatch.setenv("USER", "somebody")
    second = written(name, tmp_path / "two", rows())
    for one, two in zip(first, second, strict=True):
        files = [path for path in (one, *sorted(one.rglob("*"))) if path.is_file()]
        others = [path for path in (two, *sorted(two.rglob("*"))) if path.is_file()]
        assert [path.read_bytes() for path in files] == [path.read_bytes() for path in others]
        assert not any(str(tmp_path).encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize("name", FORMATS)
def test_a_shard_whose_clips_all_failed(name: str, tmp_path: Path) -> None:
    written(name, tmp_path, [])


@pytest.mark.parametrize("name", ["megatron", "webdataset", "dmc"])
def test_a_damaged_shard_is_found_when_it_is_read_back(name: str, tmp_path: Path) -> None:
    paths = written(name, tmp_path, rows())
    form = FORMATS[name]
    whole = form.check(SETTINGS, paths)
    damaged = next(path for path in (paths[0], *sorted(paths[0].rglob("*.dmc"))) if path.is_file())
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    try:
        found = form.check(SETTINGS, paths)
    except (DmcodecError, OSError):
        return
    assert found != whole


texts = st.text(st.characters(codec=None), min_size=1, max_size=30) | st.text("ab./%", min_size=1, max_size=8)


@given(texts, texts)
def test_other_ids_have_other_safe_names(first: str, second: str) -> None:
    name = clip_name(first)
    assert (name == clip_name(second)) == (first == second)
    assert name.isascii()
    assert all(part and part.strip(".") and len(part) <= 200 for part in name.split("/"))
    match = KEY.match(f"{name}.npy")
    assert match is not None
    assert match[1] == name


def test_long_ids_that_differ_at_their_ends_have_other_names() -> None:
    assert clip_name("x" * 250 + "1") != clip_name("x" * 250 + "2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder / "in", 6)
    run(folder / "in", folder / "parquet")
    return folder


def test_all_formats_hold_the_codes_of_a_corpus(corpus: Path) -> None:
    expected = {row["id"]: row["codes"] for row in table(corpus / "parquet").to_pylist()}
    run(corpus / "in", corpus / "ids", format="megatron", layout="level")
    found = {}
    for index in sorted((corpus / "ids" / "tokens").glob("*.idx")):
        layout = TokenLayout.load(index.with_suffix(".layout.json"))
        assert layout.pattern == "level"
        lines = index.with_suffix(".clips.jsonl").read_bytes().splitlines()
        for sequence, line in zip(read_megatron(index.with_suffix(".bin"), index)[1], lines, strict=True):
            found[json.loads(line)["id"]] = layout.codes(sequence.astype(np.int64)).tolist()
    assert found == expected
    run(corpus / "in", corpus / "tars", format="webdataset")
    found = {}
    for path in (corpus / "tars" / "tokens").iterdir():
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name in (name for name in members if name.endswith(".json")):
            codes = np.load(io.BytesIO(members[name.replace(".json", ".npy")]))
            found[json.loads(members[name])["id"]] = codes.tolist()
    assert found == expected
    run(corpus / "in", corpus / "files", format="dmc")
    found = {}
    for path in (corpus / "files" / "tokens").glob("*/clips.jsonl"):
        for line in map(json.loads, path.read_bytes().splitlines()):
            found[line["id"]] = Tokens.load(path.parent / line["file"]).codes.tolist()
    assert found == expected


def test_layouts_for_megatron(corpus: Path, tmp_path: Path) -> None:
    codec = Codec.load()

    def refused(words: str, error: type[DmcodecError] = ArgumentError, **options: Any) -> None:
        with pytest.raises(error, match=words):
            run(corpus / "in", tmp_path / "out", **{"format": "megatron", **options})

    def saved(name: str, **fields: Any) -> str:
        TokenLayout.of(codec, **fields).save(tmp_path / name)
        return str(tmp_path / name)

    refused("--layout is for --format megatron", format="parquet", layout="frame")
    refused("no such file", InputNotFoundError, layout="frames")
    refused("has parallel levels", layout=saved("delay.json", pattern="delay"))
    refused("has n_q 4, but the output has 8", layout=saved("four.json", n_q=4))
    refused("is of model 0000000000000000", layout=saved("other.json", model_id="0" * 16))
    run(corpus / "in", tmp_path / "out", format="megatron", layout=saved("special.json", model_id=""))
    index = tmp_path / "out" / "tokens" / "shard-00000.idx"
    layout = TokenLayout.load(index.with_suffix(".layout.json"))
    assert layout.model_id == codec.bundle.manifest.model_id
    _, sequences, _ = read_megatron(index.with_suffix(".bin"), index)
    assert all(sequence[[0, -1]].tolist() == [layout.bos_id, layout.eos_id] for sequence in sequences)
    refused("holds the plan of another output, of layout", OutputExistsError, layout="frame")
    run(corpus / "in", tmp_path / "words", format="megatron", layout="semantic")
    _, sequences, _ = read_megatron(*[tmp_path / "words" / "tokens" / f"shard-00000.{each}" for each in ("bin", "idx")])
    rows = {row["id"]: row["codes"][0] for row in table(corpus / "parquet").to_pylist()}
    assert [sequence.tolist() for sequence in sequences] == list(rows.values())[: len(sequences)]
