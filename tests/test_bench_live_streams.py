"""`dmcodec bench --streams`: the latency of many live streams, and the search for how many hold."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from dmcodec.benchmarks import BenchOptions
from dmcodec.benchmarks.bench import live_streams
from dmcodec.benchmarks.bench.live_streams import largest_that_holds, measure_live_streams, typical
from dmcodec.benchmarks.bench.page import render_report
from dmcodec.benchmarks.bench.result import LiveCapacity, LiveLevel
from dmcodec.benchmarks.bench.result_tables import live_tables
from dmcodec.benchmarks.bench.run import run_bench
from dmcodec.benchmarks.codecs.bundle import BundleCodec
from dmcodec.benchmarks.timing import no_progress
from dmcodec.errors import ArgumentError
from dmcodec.runtime import Codec


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 12, 18, 255, 511, 512, 700])
def test_the_search_finds_the_largest_number_that_holds(limit: int) -> None:
    tried: list[int] = []

    def measured(count: int) -> LiveLevel:
        tried.append(count)
        return LiveLevel("decode", "pooled", count, 1, 0.0, 0.0, holds=count <= limit)

    expected = LiveCapacity("decode", "pooled", min(limit, 512), is_lower_bound=limit >= 512)
    assert largest_that_holds("decode", "pooled", measured) == expected
    assert max(tried) <= 512
    assert len(set(tried)) <= 18


def test_a_number_that_fails_once_is_tried_again() -> None:
    tried: list[int] = []

    def measured(count: int) -> LiveLevel:
        tried.append(count)
        return LiveLevel("decode", "pooled", count, 1, 0.0, 0.0, holds=count <= 5 and tried.count(count) == 2)

    assert largest_that_holds("decode", "pooled", measured).streams == 5


def test_a_level_has_the_medians_of_its_tries() -> None:
    tries = [
        LiveLevel("decode", "pooled", 4, 160, p50, p99, p99 < 0.1) for p50, p99 in [(3, 0.2), (1, 0.09), (2, 0.05)]
    ]
    assert typical(tries) == LiveLevel("decode", "pooled", 4, 480, 2, 0.09, holds=True)


def test_all_numbers_are_measured_pooled_and_separate(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_streams, "MAX_STREAMS", 2)
    monkeypatch.setattr(live_streams, "_WARM_UP_S", 0.1)
    monkeypatch.setattr(live_streams, "TRIES", 1)
    options = BenchOptions(durations_s=(0.2,), batches=(1,), rounds=1, threads=1, streams=(1, 3), live_s=0.1)
    live = measure_live_streams(BundleCodec(Codec.load(tiny_bundle, threads=1)), options, no_progress)
    assert (live.chunk_s, live.limit_s) == (0.1, 0.1)
    assert [(level.operation, level.streams, level.side) for level in live.levels] == [
        (operation, count, side)
        for operation in ("encode", "decode")
        for count in (1, 3)
        for side in ("pooled", "separate")
    ]
    for level in live.levels:
        assert 1 <= level.pushes <= 3 * level.streams
        assert 0 < level.p50_s <= level.p99_s
        assert level.holds == (level.p99_s < 0.1)
    assert [(entry.operation, entry.side) for entry in live.capacities] == [
        (operation, side) for operation in ("encode", "decode") for side in ("pooled", "separate")
    ]
    assert all(entry.streams <= 2 for entry in live.capacities)
    result = run_bench(tiny_bundle, dataclasses.replace(options, streams=()))
    assert live_tables(result) == []
    full = dataclasses.replace(result, live=live)
    levels, capacities = live_tables(full)
    assert (len(levels.rows), len(capacities.rows)) == (8, 4)
    page = render_report(full)
    assert page.count("<svg") == render_report(result).count("<svg") + 2
    assert levels.title in page
    assert capacities.title in page
    assert full.to_dict()["live"]["levels"][0]["side"] == "pooled"


def test_a_machine_that_falls_behind_shows_it(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes of 0.3 s of work come every 0.1 s: lateness adds up."""
    codec = Codec.load(tiny_bundle, threads=1)
    arrays = codec.graphs.arrays

    def slow(name: str, **inputs: object) -> object:
        time.sleep(0.3 if name == "dequantizer" else 0)
        return arrays(name, **inputs)

    monkeypatch.setattr(codec.graphs, "arrays", slow)
    monkeypatch.setattr(live_streams, "_WARM_UP_S", 0.0)
    chunks = live_streams._chunks(codec, "decode")
    level = live_streams._measure(codec, "decode", "pooled", 1, chunks, 1.0, 1)
    assert not level.holds
    assert level.p50_s >= 0.3
    assert level.p99_s >= 0.7


@pytest.mark.parametrize("streams", [(0,), (513,), (4, -1)])
def test_wrong_numbers_of_streams(streams: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="streams must be 1 to 512, not"):
        BenchOptions(streams=streams)
    with pytest.raises(ArgumentError, match="live_s"):
        BenchOptions(live_s=0.0)
