"""`tokenize`: what the shards hold, how the plan cuts a corpus, and that nothing but the input decides on the bytes."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpora import contents, manifest, reasons, run, table, write_clip, write_corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmcodec.errors import OutputExistsError
from dmcodec.runtime import Codec
from dmcodec.runtime.corpus.engines.engine import CodecOptions, ShardProgress
from dmcodec.runtime.corpus.items import FileLocation, Item, TableRow, TarMember
from dmcodec.runtime.corpus.plan import Plan, Settings, read_plan
from dmcodec.runtime.corpus.planning import drafted
from dmcodec.runtime.corpus.reports import ShardReport, report_path
from dmcodec.runtime.corpus.run import TokenizeOptions, tokenize
from dmcodec.runtime.corpus.shard import run_shard
from dmcodec.runtime.corpus.sources.find import find_corpus
from dmcodec.runtime.corpus.summary import read_summary
from dmcodec.token_file import pack_codes, unpack_codes
from dmcodec.tokens import Tokens

SETTINGS = Settings("parquet", "lists", "0" * 16, "fp32", "onnxruntime cpu", 16000, 320, 64, 8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty clips and a file that is no audio; don't alter it."""
    folder = write_corpus(tmp_path_factory.mktemp("corpus") / "speech")
    (folder / "a" / "002.wav").write_text("no audio")
    return folder


@pytest.fixture(scope="module")
def straight(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one run in this process, without an interruption."""
    out = tmp_path_factory.mktemp("straight") / "out"
    run(corpus, out)
    return out


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load(threads=1)


def test_shards_hold_the_tokens_of_each_file(corpus: Path, straight: Path, codec: Codec) -> None:
    rows = table(straight).to_pylist()
    names = [
        str(path.relative_to(corpus))
        for path in sorted(corpus.rglob("*.wav"))
        if path.parent.name != "a" or path.name != "002.wav"
    ]
    assert [row["id"] for row in rows] == names
    for row in rows:
        tokens = codec.encode_file(corpus / row["id"])
        assert (row["num_samples"], row["duration_s"]) == (tokens.num_samples, tokens.duration_s)
        assert (row["first_level"], row["n_q"]) == (0, 8)
        np.testing.assert_array_equal(row["codes"], tokens.codes)
    assert list(reasons(straight)) == ["a/002.wav"]
    assert "can't be read as audio" in reasons(straight)["a/002.wav"]
    schema = pq.read_schema(straight / "tokens" / "shard-00000.parquet")
    facts = json.loads(schema.metadata[b"dmcodec"])
    assert facts["model_id"] == codec.bundle.manifest.model_id
    assert (facts["codes"], facts["hop_length"], facts["n_q"]) == ("lists", 320, 8)


def test_the_summary_counts_what_the_shards_hold(straight: Path) -> None:
    rows = table(straight).to_pylist()
    found = read_summary(straight)
    assert found.complete
    assert (found.clips, len(found.failures)) == (20, 1)
    assert found.num_samples == sum(row["num_samples"] for row in rows)
    for level, counts in enumerate(found.code_counts):
        codes = np.concatenate([row["codes"][level] for row in rows])
        np.testing.assert_array_equal(counts, np.bincount(codes, minlength=1024))
    assert found.size_bytes == sum(path.stat().st_size for path in (straight / "tokens").iterdir())


def test_packed_codes_are_the_same_codes(corpus: Path, straight: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out", codes="packed", n_q=3)
    lists, packed = table(straight).to_pylist(), table(tmp_path / "out").to_pylist()
    assert [row["id"] for row in lists] == [row["id"] for row in packed]
    for each, row in zip(lists, packed, strict=True):
        codes = unpack_codes(row["codes"], row["n_q"], -(-row["num_samples"] // 320), 1024)
        np.testing.assert_array_equal(codes, each["codes"][:3])


@given(st.integers(1, 8), st.integers(1, 40), st.sampled_from([2, 3, 64, 1000, 1024, 65536]))
@settings(max_examples=40)
def test_packing_is_undone_and_is_that_of_token_files(n_q: int, frames: int, size: int) -> None:
    codes = np.random.default_rng(n_q * frames).integers(0, size, (n_q, frames)).astype(np.uint16)
    packed = pack_codes(codes, size)
    np.testing.assert_array_equal(unpack_codes(packed, n_q, frames, size), codes)
    tokens = Tokens(codes, frames * 320, 16000, 320, size)
    assert len(packed) == tokens.file_bytes - 44  # header and checksum


def test_several_processes_give_the_same_bytes(corpus: Path, straight: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out", workers=3)
    assert contents(tmp_path / "out") == contents(straight)


class Stop(Exception):  # noqa: N818
    """Ends a run after some shards."""


class StoppingEngine:
    """Runs some of the pending shards, in a given order, and then fails."""

    def __init__(self, shards: Sequence[int]) -> None:
        self._shards = shards

    def run(
        self, plan: Plan, pending: Sequence[int], codec: CodecOptions, progress: ShardProgress
    ) -> Iterator[ShardReport]:
        loaded = codec.load()
        for index in self._shards:
            if index in pending:
                yield run_shard(plan, index, loaded)
        raise Stop


@given(data=st.data())
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_interruptions_in_any_order_change_nothing(
    data: st.DataObject, corpus: Path, straight: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("interrupted") / "out"
    count = len(read_plan(straight).shards)
    order = data.draw(st.permutations(range(count)))
    options = TokenizeOptions(shard_s=2.0)
    for shards in (order[: count // 2], order[: count // 3]):
        with pytest.raises(Stop):
            tokenize(find_corpus([str(corpus)]), out, CodecOptions(), StoppingEngine(shards), options)
    done = {path: path.stat().st_mtime_ns for path in (out / "tokens").iterdir()}
    assert len(done) == count // 2
    lost = data.draw(st.sampled_from(["report", "tokens", "cut"]))
    victim = order[0]
    tokens = out / "tokens" / f"shard-{victim:05d}.parquet"
    if lost == "report":
        report_path(out, victim).unlink()
    elif lost == "tokens":
        tokens.unlink()
    else:
        tokens.write_bytes(tokens.read_bytes()[:-9])
    (out / "tokens" / ".shard-00000.parquet.0123.dmcodec-part.parquet").write_bytes(b"left by a killed process")
    run(corpus, out)
    assert contents(out) == contents(straight)
    again = {path: path.stat().st_mtime_ns for path in done if path != tokens}
    assert again == {path: time for path, time in done.items() if path != tokens}


def test_nothing_runs_again_when_all_is_done(corpus: Path, straight: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (straight / "tokens").iterdir()}
    found = tokenize(
        find_corpus([str(corpus)]), straight, CodecOptions(), StoppingEngine([]), TokenizeOptions(shard_s=2.0)
    )
    assert found.complete
    assert before == {path: path.stat().st_mtime_ns for path in (straight / "tokens").iterdir()}


def test_long_recordings_get_the_tokens_of_one_piece(codec: Codec, tmp_path: Path) -> None:
    write_clip(tmp_path / "in" / "long.wav", 33, 8000)
    write_clip(tmp_path / "in" / "short.wav", 0.4)
    rows = [
        {"id": "part", "path": "in/long.wav", "start": 0.5, "duration": 31.5},
        {"id": "rest", "path": "in/long.wav", "start": 1.25},
    ]
    run([tmp_path / "in", manifest(tmp_path / "m.jsonl", rows)], tmp_path / "out", shard_s=1000.0)
    found = {row["id"]: row for row in table(tmp_path / "out").to_pylist()}
    assert list(found) == ["long.wav", "short.wav", "part", "rest"]
    whole = codec.encode_file(tmp_path / "in" / "long.wav")
    np.testing.assert_array_equal(found["long.wav"]["codes"], whole.codes)
    assert found["part"]["num_samples"] == round(31.5 * 16000)
    assert found["rest"]["num_samples"] == round(31.75 * 16000)


lengths = st.lists(st.floats(0.01, 30), min_size=1, max_size=60)


@given(lengths, st.floats(1, 100))
@settings(max_examples=40)
def test_shards_hold_every_clip_once_in_order_and_about_equal_audio(audio_s: list[float], shard_s: float) -> None:
    items = [Item(f"{index}", FileLocation("x"), audio_s=each) for index, each in enumerate(audio_s)]
    folder = Path("nowhere")
    with drafted(items, folder, ["x"], SETTINGS, shard_s) as draft:
        plan = draft.plan
        draft.lines.seek(0)
        lines = draft.lines.read().splitlines(keepends=True)
    assert [Item.from_json(json.loads(line)) for line in lines] == items
    assert plan.num_items == len(items)
    assert min(shard.items for shard in plan.shards) >= 1
    target = sum(audio_s) / min(len(items), max(1, -(-sum(audio_s) // shard_s)))
    start = 0
    for shard in plan.shards:
        mine = lines[start : start + shard.items]
        assert hashlib.sha256(b"".join(mine)).hexdigest() == shard.sha256
        # A clip goes to the shard that its middle lies in.
        assert shard.audio_s <= target + max(audio_s) + 0.01
        start += shard.items


def test_items_survive_json() -> None:
    for location in (
        FileLocation("/a/\udce9.wav"),
        TarMember("t.tar", "a/b.wav", 512, 99),
        TableRow("t.parquet", 3, "audio"),
    ):
        item = Item("x", location, 0.0, 1.5, 0, {"text": None, "n": 3}, "9 9", 7, 1.5)
        assert Item.from_json(json.loads(json.dumps(item.to_json()))) == item
        assert Item.from_json(Item("x", location).to_json()) == Item("x", location)


def test_a_plan_of_something_else_is_refused(corpus: Path, straight: Path, tmp_path: Path) -> None:
    before = contents(straight)
    with pytest.raises(OutputExistsError, match="of n_q 8 and not 4"):
        run(corpus, straight, n_q=4)
    with pytest.raises(OutputExistsError, match=r"another corpus: .*a/001\.wav is gone"):
        run(corpus / "b", straight)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="not of `dmcodec tokenize`"):
            run(corpus, tmp_path / "other", force=force)
    assert contents(straight) == before


class NoEngine:
    """Reports every shard as done, without running it."""

    def run(
        self, plan: Plan, pending: Sequence[int], codec: CodecOptions, progress: ShardProgress
    ) -> Iterator[ShardReport]:
        for index in pending:
            progress(index, 0.0, 0)
            counts = np.ones((plan.settings.n_q, plan.settings.codebook_size), np.int64)
            yield ShardReport(index, plan.shards[index].items, 320, 1, {}, counts, ())


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """Some 150 to 450 bytes a clip are needed; the clips would take 1,500, and their share of counts 650."""
    peaks = []
    for count in (500, 5_000):
        rows = [{"path": f"{index}.wav", "duration": 1.0, "text": "x" * 200} for index in range(count)]
        manifest(tmp_path / "m.jsonl", rows)
        del rows
        tracemalloc.start()
        out, options = tmp_path / str(count), TokenizeOptions(shard_s=100.0)
        found = tokenize(find_corpus([str(tmp_path / "m.jsonl")]), out, CodecOptions(), NoEngine(), options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.clips == count
    assert peaks[1] - peaks[0] < 4_500 * 900
