"""What `tokenize` takes as a corpus, and its errors: lists, manifests, parts of recordings, URLs, bad files."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from corpora import contents, manifest, reasons, run, table, write_clip, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from platforms import posix

from dmcodec.audio import read_audio
from dmcodec.errors import (
    ArgumentError,
    AudioError,
    CorpusError,
    DataError,
    DmcodecError,
    InputNotFoundError,
    OutputError,
    OutputExistsError,
)
from dmcodec.runtime import Codec
from dmcodec.runtime.corpus.clips import Clips
from dmcodec.runtime.corpus.items import FileLocation, Item
from dmcodec.runtime.corpus.outputs import FORMATS, parquet
from dmcodec.runtime.corpus.outputs.writer import OutputFormat
from dmcodec.runtime.corpus.sources.find import find_corpus
from dmcodec.waveforms import prepare_waveform


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "in", 6)


def items(*inputs: object) -> list[Item]:
    return list(find_corpus([str(each) for each in inputs]).items())


def test_ids_are_paths_from_the_common_folder_on(tmp_path: Path) -> None:
    for name in ("x/a.wav", "y/a.wav", "y/z/b.wav", "y/.hidden/c.wav", "y/notes.txt"):
        write_clip(tmp_path / name, 0.1)
    assert [each.id for each in items(tmp_path / "y")] == ["a.wav", "z/b.wav"]
    assert [each.id for each in items(tmp_path / "x", tmp_path / "y")] == ["x/a.wav", "y/a.wav", "y/z/b.wav"]
    assert [each.id for each in items(tmp_path / "y" / "a.wav", tmp_path / "y")] == ["a.wav", "z/b.wav"]  # once
    assert [each.id for each in items(f"{tmp_path}/*/a.wav")] == ["x/a.wav", "y/a.wav"]
    assert len(find_corpus([str(tmp_path / "y")]).left_out) == 2


def test_a_list_names_files_beside_it(corpus: Path, tmp_path: Path) -> None:
    inside, outside = corpus / "a" / "001.wav", write_clip(tmp_path / "more" / "é.wav", 0.2)
    text = f"\n  a/001.wav\n\n{outside}\r\nmissing.wav\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (corpus / "list.txt").write_text(text, encoding=encoding, newline="")
        found = items(corpus / "list.txt")
        assert [each.id for each in found] == ["a/001.wav", str(outside), "missing.wav"]
        assert [Path(each.source) for each in found] == [inside, outside, corpus / "missing.wav"]
        assert [bool(each.state) for each in found] == [True, True, False]
    assert items(corpus)[0].id == "a/001.wav"  # a folder may have any name
    (tmp_path / "in.txt").mkdir()
    write_clip(tmp_path / "in.txt" / "x.wav", 0.1)
    assert [each.id for each in items(tmp_path / "in.txt")] == ["x.wav"]


@posix
def test_names_may_hold_any_bytes(tmp_path: Path) -> None:
    name = b"caf\xe9\n.wav"
    write_clip(tmp_path / "in" / os.fsdecode(name), 0.1)
    (tmp_path / "list.txt").write_bytes(b"in/gone\xff.wav\n")
    run([tmp_path / "in", tmp_path / "list.txt"], tmp_path / "out")
    assert table(tmp_path / "out")["id"].to_pylist() == ["caf\\xe9\n.wav"]
    assert reasons(tmp_path / "out") == {"in/gone\\xff.wav": f"{tmp_path}/in/gone\\xff.wav: no such audio file"}


def test_columns_of_a_manifest_pass_through(corpus: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "one", "path": "in/a/001.wav", "speaker": "anna", "age": 30, "score": 1, "tags": ["x"], "ok": True},
        {
            "audio_filepath": "in/a/003.wav",
            "speaker": None,
            "score": 2.5,
            "age": 2**70,
            "text": "hé\u2028y",
            "ok": None,
        },
        {"id": 7, "path": str(corpus / "a" / "005.wav"), "channel": 0},
    ]
    run(manifest(tmp_path / "m.jsonl", rows), tmp_path / "out")
    found = table(tmp_path / "out")
    assert found["id"].to_pylist() == ["one", "in/a/003.wav", "7"]
    assert found["speaker"].to_pylist() == ["anna", None, None]
    assert found["age"].to_pylist() == ["30", str(2**70), None]
    assert found["score"].to_pylist() == [1.0, 2.5, None]
    assert found["tags"].to_pylist() == ['["x"]', None, None]
    assert found["ok"].to_pylist() == [True, None, None]
    assert found["text"].to_pylist() == [None, "hé\u2028y", None]
    (tmp_path / "m.tsv").write_text("path\tid\tspeaker\nin/a/001.wav\tone\t007\nin/a/003.wav\ttwo\t\n")
    run(tmp_path / "m.tsv", tmp_path / "tsv")
    assert table(tmp_path / "tsv")["speaker"].to_pylist() == ["007", None]


def test_parts_are_encoded_as_files_of_their_own(tmp_path: Path) -> None:
    source = tmp_path / "talk.flac"
    samples = np.stack([write_and_read(tmp_path, 3.0), write_and_read(tmp_path, 3.0, 1.0)])
    soundfile.write(source, samples.T, 22050)
    rows = [
        {"path": "talk.flac", "start": 0.5, "duration": 0.75, "channel": 1},
        {"path": "talk.flac", "start": 0.5, "duration": 0.75},
        {"path": "talk.flac", "start": 2.25, "duration": 0.8},  # 0.05 s more than there is
        {"path": "talk.flac", "start": 2.25, "duration": 1.0},
        {"path": "talk.flac", "start": 7},
    ]
    run(manifest(tmp_path / "m.jsonl", rows), tmp_path / "out")
    codec, found = Codec.load(threads=1), table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in found] == [
        "talk.flac#start=0.5,duration=0.75,channel=1",
        "talk.flac#start=0.5,duration=0.75",
        "talk.flac#start=2.25,duration=0.8",
    ]
    stored, _ = read_audio(source)
    cut = slice(round(0.5 * 22050), round(1.25 * 22050))
    np.testing.assert_array_equal(found[0]["codes"], codec.encode(stored[1, cut], 22050).codes)
    np.testing.assert_array_equal(found[1]["codes"], codec.encode(stored[:, cut], 22050).codes)
    np.testing.assert_array_equal(found[2]["codes"], codec.encode(stored[:, round(2.25 * 22050) :], 22050).codes)
    late = reasons(tmp_path / "out")
    assert "talk.flac: ends at 3 s, but clip talk.flac#start=2.25,duration=1.0 ends at 3.25 s" in str(late)
    assert "starts at 7 s" in late["talk.flac#start=7"]


def write_and_read(folder: Path, seconds: float, start: float = 0.0) -> Any:
    return soundfile.read(write_clip(folder / "one.wav", seconds, 22050, start), dtype="float32")[0]


parts = st.lists(st.tuples(st.floats(0, 39), st.floats(0.01, 8)), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty seconds: several blocks of the reader."""
    return write_clip(tmp_path_factory.mktemp("recording") / "long.wav", 40, 11025)


@given(parts, st.booleans(), st.sampled_from([11025, 16000]))
@settings(max_examples=15)
def test_parts_are_cut_in_any_order_by_any_threads(
    recording: Path, cuts: list[tuple[float, float]], ordered: bool, rate: int
) -> None:
    cuts = sorted(cuts) if ordered else cuts
    found = [
        Item(str(index), FileLocation(str(recording)), start, duration) for index, (start, duration) in enumerate(cuts)
    ]
    samples = soundfile.read(recording, dtype="float32")[0]
    before, clips = set(threading.enumerate()), Clips(found, rate, 30.0)
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(clips.read, item) for item in found]
    for (start, duration), future in zip(cuts, futures, strict=True):
        cut = samples[round(start * 11025) : round((start + duration) * 11025)]
        if start + duration > 40.1 or not len(cut):
            assert isinstance(future.exception(), AudioError)
        else:
            np.testing.assert_array_equal(future.result(), prepare_waveform(cut, 11025, rate))
    clips.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.tsv", "a\tb\nc\td\n", "m.tsv: line 1: has no column 'path'"),
        ("m.tsv", "path\tid\na.wav\n", "m.tsv: line 2: has 1 columns, but the first line has 2"),
        ("m.tsv", "path\tpath\na\tb\n", "two columns have one name"),
        ("m.tsv", "path\toffset\tstart\na\t1\t2\n", "which mean the same"),
        ("m.tsv", "path\tduration\na.wav\tlong\n", "line 2: duration must be a number of seconds"),
        ("m.tsv", "path\tduration\na.wav\t0\n", "line 2: duration must be more than 0"),
        ("m.tsv", "path\tstart\na.wav\t-1\n", "line 2: start must be a number of seconds from 0 on"),
        ("m.tsv", "path\tstart\na.wav\tinf\n", "line 2: start must be a number of seconds from 0 on"),
        ("m.tsv", "path\tchannel\na.wav\tleft\n", "line 2: channel must be a whole number"),
        ("m.tsv", "path\tn_q\na.wav\t3\n", "the column 'n_q' has the name of an output; rename it"),
        ("m.jsonl", "{\n", "m.jsonl: line 1: is no JSON"),
        ("m.jsonl", "[1]\n", "m.jsonl: line 1: is no JSON object"),
        ("m.jsonl", '{"path": 3}\n', "m.jsonl: line 1: has no 'path', or it is no text"),
        ("m.jsonl", '{"path": "a", "id": true}\n', "id must be text or a whole number"),
        ("m.jsonl", '{"path": "a", "start": true}\n', "start must be a number of seconds"),
        ("m.jsonl", "[" * 100_000 + "\n", "is no JSON"),
        ("list.txt", "a\0b\n", "list.txt: line 1 holds a zero byte"),
        ("list.txt", "a.wav\nb.wav\na.wav\n", "two clips have the id a.wav"),
        ("m.jsonl", '{"path": "a", "id": "x"}\n{"path": "b", "id": "x"}\n', "a and .*b; give each an id of its own"),
    ],
)  # fmt: skip
def test_a_wrong_list_or_manifest_is_one_error(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        run(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "list.txt").write_text("\n \n")
    for name, message in (
        ("in", "no files in this folder"), ("list.txt", "list.txt: the corpus is empty"), ("no.wav", "no such file"),
        ("no.tsv", "no.tsv: no such file"), ("*.flac", "no files match"),
    ):  # fmt: skip
        with pytest.raises(InputNotFoundError, match=message):
            run(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@posix
def test_bad_files_harm_no_other(corpus: Path, tmp_path: Path) -> None:
    (corpus / "a" / "002.wav").write_bytes(b"")
    (corpus / "a" / "004.wav").write_text("<!doctype html>")
    soundfile.write(corpus / "nan.wav", np.full(900, np.nan), 16000, subtype="FLOAT")
    (corpus / "b" / "gone.wav").symlink_to("nowhere")
    cut = write_clip(corpus / "cut.wav", 1.0)
    cut.write_bytes(cut.read_bytes()[:9000])
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "list.txt").write_text("pipe.wav\n" + "x" * 300 + ".wav\n")
    found = run([corpus, tmp_path / "list.txt"], tmp_path / "out")
    why = reasons(tmp_path / "out")
    words = {
        "a/002.wav": "is empty", "a/004.wav": "is a web page", "nan.wav": "NaN", "b/gone.wav": "no such audio file",
        "cut.wav": "", "pipe.wav": "is a pipe, a socket or a device", "x" * 300 + ".wav": "no such audio file",
    }  # fmt: skip
    assert set(why) == set(words)
    assert all(words[name] in reason for name, reason in why.items())
    assert found.clips == 6
    assert [failure.id for failure in found.failures] == list(why)
    # What is done stays done: the failures, too.
    again = run([corpus, tmp_path / "list.txt"], tmp_path / "out")
    assert again.failures == found.failures


def test_max_failures_stops_early(corpus: Path, tmp_path: Path) -> None:
    for index in range(4):
        (corpus / "a" / f"{index}.wav").write_bytes(b"")
    with pytest.raises(CorpusError, match=r"clips failed, more than --max-failures 2; \d of 5 shards are done"):
        run(corpus, tmp_path / "out", max_failures=2, shard_s=0.5)
    assert 0 < len(reasons(tmp_path / "out")) < 5
    assert run(corpus, tmp_path / "out", max_failures=4, shard_s=0.5).clips == 6


def test_a_corpus_that_changed_is_refused(corpus: Path, tmp_path: Path) -> None:
    out, victim = tmp_path / "out", corpus / "a" / "001.wav"
    (corpus / "bad.wav").write_bytes(b"")
    with pytest.raises(CorpusError):
        run(corpus, out, max_failures=0)
    before, audio, status = contents(out), victim.read_bytes(), victim.stat()
    assert before
    with victim.open("ab") as file:
        file.write(b"\0\0")
    with pytest.raises(OutputExistsError, match=r"plan of another corpus: .*a/001\.wav was changed"):
        run(corpus, out)
    victim.write_bytes(audio)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    write_clip(corpus / "b" / "new.wav", 0.1)
    with pytest.raises(OutputExistsError, match=r"b/new\.wav is new"):
        run(corpus, out)
    assert contents(out) == before
    found = run(corpus, out, keep_plan=True)
    assert (found.clips, len(found.failures)) == (6, 1)
    assert run(corpus, out, force=True).clips == 7


def test_a_file_that_changes_after_the_plan_is_a_failure(corpus: Path, tmp_path: Path) -> None:
    (corpus / "0.wav").write_bytes(b"")
    with pytest.raises(CorpusError):
        run(corpus, tmp_path / "out", max_failures=0, shard_s=0.5)
    write_clip(corpus / "b" / "deep" / "004.wav", 0.3)
    run(corpus, tmp_path / "out", keep_plan=True)
    why = reasons(tmp_path / "out")["b/deep/004.wav"]
    assert "was changed after the plan was made" in why


class FullDisk:
    """A writer whose third clip finds no room."""

    def __init__(self, *arguments: Any) -> None:
        self._writer = parquet._ParquetWriter(*arguments)
        self.rows = 0

    def write(self, row: Any) -> None:
        self.rows += 1
        if row.id >= "b":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._writer.write(row)

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        self._writer.abort()


def test_a_full_disk_is_one_error_and_loses_nothing(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, tmp_path / "straight", shard_s=0.8)
    with monkeypatch.context() as patch:
        full = OutputFormat("parquet", (".parquet",), FullDisk, parquet._check)
        patch.setitem(
            FORMATS,
            "parquet",
            full,
        )
        with pytest.raises(OutputError, match=r"shard-00002\.parquet: can't be written \(No space left on device\)"):
            run(corpus, tmp_path / "out", shard_s=0.8)
    assert sorted(path.name for path in (tmp_path / "out" / "tokens").iterdir()) == [
        "shard-00000.parquet", "shard-00001.parquet"
    ]  # fmt: skip
    run(corpus, tmp_path / "out", shard_s=0.8)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


def test_a_shard_that_reads_back_as_something_else_is_not_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(settings: Any, paths: Any) -> Any:
        data = bytearray(paths[0].read_bytes())
        data[60:64] = b"\0\0\0\0"
        paths[0].write_bytes(data)
        return parquet._check(settings, paths)

    broken = OutputFormat("parquet", (".parquet",), parquet._ParquetWriter, check)
    monkeypatch.setitem(
        FORMATS,
        "parquet",
        broken,
    )
    with pytest.raises(OutputError, match=r"shard-00000\.parquet: can't be read back"):
        run(corpus, tmp_path / "out")
    assert list((tmp_path / "out" / "tokens").iterdir()) == []


def test_options_are_checked(corpus: Path, tmp_path: Path) -> None:
    for options in (
        {"format": "csv"}, {"codes": "text"}, {"n_q": 9}, {"n_q": 0}, {"shard_s": 0.0}, {"shard_s": 1e9},
        {"max_failures": -1}, {"force": True, "keep_plan": True}, {"keep_plan": True}, {"workers": 0},
    ):  # fmt: skip
        with pytest.raises(ArgumentError):
            run(corpus, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def memory_files(corpus: Path) -> Iterator[str]:
    """The corpus in fsspec's file system in memory; return its URL."""
    import fsspec

    system = fsspec.filesystem("memory")
    for path in corpus.rglob("*.wav"):
        system.pipe(f"/corpus/{path.relative_to(corpus)}", path.read_bytes())
    system.pipe("/corpus/.hidden/x.wav", b"")
    system.pipe("/corpus/notes.md", b"no audio")
    system.pipe("/corpus/list.txt", b"a/001.wav\nmemory://corpus/a/003.wav\n")
    yield "memory://corpus"
    system.rm("/corpus", recursive=True)


def test_urls_are_read_through_fsspec(corpus: Path, memory_files: str, tmp_path: Path) -> None:
    run(corpus, tmp_path / "local")
    inputs: list[Any] = [memory_files]
    run(inputs, tmp_path / "remote")
    assert not (tmp_path / "remote" / "failures.parquet").exists(), reasons(tmp_path / "remote")
    assert table(tmp_path / "remote").equals(table(tmp_path / "local"))
    run([f"file://{corpus}"], tmp_path / "file")  # type: ignore[list-item]
    assert table(tmp_path / "file").equals(table(tmp_path / "local"))
    assert [each.id for each in items(f"{memory_files}/a/*.wav")] == [f"corpus/a/00{n}.wav" for n in (1, 3, 5)]
    assert [each.id for each in items(f"{memory_files}/list.txt")] == ["a/001.wav", "memory://corpus/a/003.wav"]
    assert all(each.state for each in items(f"{memory_files}/list.txt"))
    with pytest.raises(DmcodecError, match="nowhere: no such file"):
        items("memory://nowhere")
    with pytest.raises(ArgumentError, match="nosuch://x: fsspec can't open it"):
        items("nosuch://x")


def test_the_plan_names_what_was_asked_for(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out", n_q=2)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["inputs"] == [str(corpus)]
    assert plan["items"] == 6
    assert plan["settings"]["n_q"] == 2
    assert plan["audio_s"] == pytest.approx(sum(table(tmp_path / "out")["duration_s"].to_pylist()), abs=0.01)
    assert not any(
        str(tmp_path).encode() in data for name, data in contents(tmp_path / "out").items() if "plan" not in name
    )
