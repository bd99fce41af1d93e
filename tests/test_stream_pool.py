"""Many live streams in a pool: each returns what it returns alone, whoever else pushes, and however."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pools import Gate, alone, assert_same, cut, random_codes

from dmcodec.errors import ArgumentError
from dmcodec.runtime import Codec
from dmcodec.runtime.backend import Graphs
from dmcodec.runtime.pool.arena import StateArena
from dmcodec.sample import speech


@pytest.fixture(scope="module")
def codec(tiny_bundle: Path) -> Codec:
    return Codec.load(tiny_bundle, threads=1)


@st.composite
def clients(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Streams of all kinds: lengths, cuts, levels, look-aheads and sample rates, and when each begins."""
    found = []
    for seed in range(draw(st.integers(1, 6))):
        sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
        client: dict[str, Any] = {"seed": seed, "sizes": sizes, "delay": draw(st.integers(0, 4))}
        if draw(st.booleans()):
            client["frames"] = draw(st.integers(1, 30))
            client["decoder"] = draw(st.sampled_from([{}, {"n_q": 3}, {"first_level": 5}]))
        else:
            client["samples"] = draw(st.integers(1, 9000))
            client["encoder"] = draw(
                st.sampled_from(
                    [{"look_ahead_s": 0.1}, {"look_ahead_s": 0.1, "sample_rate": 8000}, {"look_ahead_s": 0.3, "n_q": 2}]
                )
            )
        found.append(client)
    return found


def opened(source: Any, client: dict[str, Any]) -> tuple[Any, list[NDArray[Any]]]:
    """A stream of a pool, or a single one of a codec, and the chunks to push."""
    single = isinstance(source, Codec)
    if "decoder" in client:
        levels = client["decoder"].get("n_q", 8 - client["decoder"].get("first_level", 0))
        chunks = cut(random_codes(client["frames"], client["seed"])[:levels], client["sizes"])
        return (source.stream_decoder if single else source.decoder)(**client["decoder"]), chunks
    samples = np.roll(speech(9000, 16000), 777 * client["seed"])[: client["samples"]]
    chunks = cut(samples, [333 * size for size in client["sizes"]])
    return (source.stream_encoder if single else source.encoder)(**client["encoder"]), chunks


@settings(max_examples=20)
@given(clients=clients(), max_wait_ms=st.sampled_from([0, 1, 10]))
def test_any_company_gives_what_the_stream_gives_alone(
    codec: Codec, clients: list[dict[str, Any]], max_wait_ms: float
) -> None:
    expected = [alone(*opened(codec, client)) for client in clients]

    async def one(pool: Any, client: dict[str, Any]) -> NDArray[Any]:
        for _ in range(client["delay"]):
            await asyncio.sleep(0.001)
        stream, chunks = opened(pool, client)
        with stream:
            parts = [await stream.push_async(chunk) for chunk in chunks]
            return np.concatenate([*parts, await stream.finish_async()], axis=-1)

    async def everyone() -> list[NDArray[Any]]:
        with codec.stream_pool(len(clients), max_wait_ms) as pool:
            return await asyncio.gather(*(one(pool, client) for client in clients))

    for got, want in zip(asyncio.run(everyone()), expected, strict=True):
        assert_same(got, want)


def test_threads_push_into_streams_of_one_pool(codec: Codec) -> None:
    clips = [cut(random_codes(30, seed), [5]) for seed in range(6)]
    with codec.stream_pool(max_streams=6) as pool, ThreadPoolExecutor(6) as threads:
        got = list(threads.map(lambda chunks: alone(pool.decoder(), chunks), clips))
    for audio, chunks in zip(got, clips, strict=True):
        assert_same(audio, alone(codec.stream_decoder(), chunks))


def test_batches_run_at_the_same_time(tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle, threads=3)
    clips = [cut(random_codes(60, seed), [5, 3]) for seed in range(12)]
    with codec.stream_pool(max_wait_ms=0) as pool, ThreadPoolExecutor(12) as threads:
        workers = [thread for thread in threading.enumerate() if thread.name.startswith("dmcodec-stream-pool")]
        assert len(workers) >= 3
        got = list(threads.map(lambda chunks: alone(pool.decoder(), chunks), clips))
    for audio, chunks in zip(got, clips, strict=True):
        assert_same(audio, alone(codec.stream_decoder(), chunks))


def test_a_stream_may_be_used_by_threads_and_tasks_in_turn(codec: Codec) -> None:
    chunks = cut(random_codes(20), [5])
    with codec.stream_pool() as pool, ThreadPoolExecutor(1) as thread:
        stream = pool.decoder()
        parts = [stream.push(chunks[0]), asyncio.run(stream.push_async(chunks[1]))]
        parts += [thread.submit(stream.push, chunks[2]).result(), stream.push(chunks[3]), stream.finish()]
    assert_same(np.concatenate(parts), alone(codec.stream_decoder(), chunks))


def test_waiting_pushes_run_as_one_batch(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    gate = Gate(codec.graphs, monkeypatch)
    clips = [random_codes(10, seed) for seed in range(5)]

    async def everyone(pool: Any) -> None:
        first, *others = [pool.decoder() for _ in clips]
        gate.shut()
        held = asyncio.create_task(first.push_async(clips[0]))
        await asyncio.to_thread(gate.held.wait)
        tasks = [asyncio.create_task(one.push_async(clip)) for one, clip in zip(others, clips[1:], strict=True)]
        await asyncio.sleep(0)
        gate.open()
        for audio, clip in zip(await asyncio.gather(held, *tasks), clips, strict=True):
            assert_same(audio, codec.stream_decoder().push(clip))

    with codec.stream_pool(max_wait_ms=0) as pool:
        asyncio.run(everyone(pool))
    assert gate.batches()[:2] == [1, 4]
    # features of the batch of four are made by one run, too
    assert [len(inputs["features"]) for name, inputs in gate.runs if name == "decoder_upsampler"][:2] == [1, 4]


def test_levels_and_lengths_that_differ_run_apart(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    gate = Gate(codec.graphs, monkeypatch)
    pushes = [({}, random_codes(10)), ({}, random_codes(9)), ({"first_level": 2}, random_codes(10)[2:]),
              ({"n_q": 6}, random_codes(10)[:6])]  # fmt: skip

    async def everyone(pool: Any) -> None:
        first, streams = pool.decoder(), [pool.decoder(**levels) for levels, _ in pushes]
        gate.shut()
        held = asyncio.create_task(first.push_async(random_codes(4)))
        await asyncio.to_thread(gate.held.wait)
        tasks = [asyncio.create_task(s.push_async(codes)) for s, (_, codes) in zip(streams, pushes, strict=True)]
        await asyncio.sleep(0)
        gate.open()
        await held
        for audio, (levels, codes) in zip(await asyncio.gather(*tasks), pushes, strict=True):
            assert_same(audio, codec.stream_decoder(**levels).push(codes))

    with codec.stream_pool(max_wait_ms=0) as pool:
        asyncio.run(everyone(pool))
    sizes = [inputs["codes"].shape for name, inputs in gate.runs if name == "dequantizer"]
    assert sizes[1:5] == [(8, 1, 10), (8, 1, 9), (6, 1, 10), (6, 1, 10)]  # no level is added to another's
    assert gate.batches()[1:3] == [3, 1]  # latents of ten frames run together, whatever their levels were


def test_windows_inside_clips_are_laid_end_to_end(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of different lengths, too; those at the ends of a clip run as they do alone. There are no steps here."""
    monkeypatch.setattr(Graphs, "state_size", lambda _self, _steps: 0)
    codec = Codec.load(tiny_bundle, threads=1)
    gate = Gate(codec.graphs, monkeypatch)
    clips = [cut(random_codes(40, seed), [size]) for seed, size in enumerate((5, 5, 8, 20))]

    async def everyone(pool: Any) -> None:
        blocker, streams, singles = (
            pool.decoder(),
            [pool.decoder() for _ in clips],
            [codec.stream_decoder() for _ in clips],
        )
        for number in range(2):
            gate.shut()
            held = asyncio.create_task(blocker.push_async(random_codes(4)))
            await asyncio.to_thread(gate.held.wait)
            tasks = [
                asyncio.create_task(s.push_async(chunks[number])) for s, chunks in zip(streams, clips, strict=True)
            ]
            await asyncio.sleep(0)
            gate.open()
            await held
            for task, single, chunks in zip(tasks, singles, clips, strict=True):
                assert_same(await task, single.push(chunks[number]))

    with codec.stream_pool(max_wait_ms=0) as pool:
        asyncio.run(everyone(pool))
    widths = [inputs["features"].shape for name, inputs in gate.runs if name == "decoder_upsampler"]
    assert (1, 64, 7 + 7 + 10 + 22) in widths


def test_a_long_push_runs_in_parts_between_those_of_others(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = Codec.load(tiny_bundle, threads=1)
    gate = Gate(codec.graphs, monkeypatch)
    codes = random_codes(110)
    with codec.stream_pool() as pool:
        stream = pool.decoder()
        audio = np.concatenate([stream.push(codes), stream.finish()])
        samples = speech(16000, 16000)
        encoder = pool.encoder(look_ahead_s=0.1)
        found = np.concatenate([encoder.push(samples), encoder.finish()], axis=1)
    assert [inputs["codes"].shape[2] for name, inputs in gate.runs if name == "dequantizer"] == [25, 25, 25, 25, 10]
    assert_same(audio, alone(codec.stream_decoder(), [codes]))
    assert_same(found, alone(codec.stream_encoder(look_ahead_s=0.1), [samples]))


def test_reset_begins_a_new_clip(codec: Codec) -> None:
    chunks = cut(random_codes(20), [5])
    with codec.stream_pool() as pool:
        stream = pool.decoder()
        stream.push(random_codes(9, seed=3))
        stream.reset()
        assert_same(alone(stream, chunks), alone(codec.stream_decoder(), chunks))
        stream.reset()
        assert_same(alone(stream, chunks[:1]), alone(codec.stream_decoder(), chunks[:1]))


def test_streams_keep_nothing_in_the_arena_when_they_have_gone(codec: Codec) -> None:
    with codec.stream_pool(max_streams=3) as pool:
        for seed in range(5):
            with pool.decoder() as stream:
                alone(stream, cut(random_codes(20, seed), [5]))
            del stream
    assert {len(table._free) for table in pool._arena._tables.values()} == {9}


def test_states_that_find_no_row_are_kept_beside_the_arena(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmcodec.runtime.pool.stream_pool._ROWS_PER_STREAM", 1)
    chunks = [cut(random_codes(25, seed), [5]) for seed in range(3)]
    with codec.stream_pool(max_streams=3) as pool:
        streams = [pool.decoder() for _ in chunks]
        parts: list[list[NDArray[Any]]] = [[] for _ in chunks]
        for index in range(5):
            with ThreadPoolExecutor(3) as threads:
                for row, audio in enumerate(threads.map(lambda s, c: s.push(c[index]), streams, chunks)):  # noqa: B023
                    parts[row].append(audio)
    for joined, clip in zip(parts, chunks, strict=True):
        single = codec.stream_decoder()
        assert_same(np.concatenate(joined), np.concatenate([single.push(chunk) for chunk in clip]))


def test_arena_rows_are_values(codec: Codec) -> None:
    arena = StateArena(codec.bundle.manifest.graphs, capacity=3)
    name = "decoder_recurrent"
    assert arena.is_state(name, "hidden")
    assert arena.is_state(name, "new_cell")
    assert not arena.is_state(name, "latents")
    batch = np.arange(2 * 3 * 64, dtype=np.float32).reshape(2, 3, 64)
    rows = arena.scatter(name, "new_hidden", batch)
    np.testing.assert_array_equal(arena.gather(name, "hidden", [rows[2], rows[0]]), batch[:, [2, 0]])
    beside = arena.scatter(name, "new_hidden", batch[:, :2] + 1000)  # no row is free
    assert [isinstance(state, np.ndarray) for state in beside] == [True, True]
    mixed = arena.gather(name, "hidden", [beside[1], rows[1]])
    np.testing.assert_array_equal(mixed, np.stack([batch[:, 1] + 1000, batch[:, 1]], axis=1))
    del rows[1]
    [again] = arena.scatter(name, "new_hidden", batch[:, :1] - 5)
    np.testing.assert_array_equal(np.asarray(again), batch[:, :1] - 5)
    np.testing.assert_array_equal(np.asarray(rows[0]), batch[:, :1])  # the others lie where they lay


def test_pool_and_streams_say_what_they_are(codec: Codec) -> None:
    with codec.stream_pool(max_streams=2, max_wait_ms=5) as pool:
        decoder, encoder = pool.decoder(n_q=3), pool.encoder(look_ahead_s=0.2, sample_rate=8000)
        assert repr(decoder).startswith("PooledDecoder(StreamDecoder(levels 0 to 2, ")
        assert repr(encoder).startswith("PooledEncoder(StreamEncoder(8 levels from 8000 Hz")
        single = codec.stream_encoder(look_ahead_s=0.2, sample_rate=8000)
        assert (decoder.look_ahead_frames, encoder.look_ahead_frames) == (4, single.look_ahead_frames)
        assert (encoder.sample_rate, encoder.delay_s) == (8000, single.delay_s)
        assert repr(pool).startswith("StreamPool(2 of 2 streams open, waits 5 ms, Codec(")
        decoder.close()
        assert repr(decoder).endswith(", closed)")
        assert pool.num_streams == 1
    assert repr(pool).startswith("StreamPool(closed, ")


@pytest.mark.parametrize(
    "arguments",
    [{"max_streams": 0}, {"max_streams": 2.5}, {"max_streams": True}, {"max_streams": 10**6}, {"max_wait_ms": -1},
     {"max_wait_ms": float("nan")}, {"max_wait_ms": "10"}, {"max_wait_ms": 1e6}],
)  # fmt: skip
def test_wrong_arguments_of_a_pool(codec: Codec, arguments: dict[str, Any]) -> None:
    before = set(threading.enumerate())
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        codec.stream_pool(**arguments)
    assert set(threading.enumerate()) <= before


def test_wrong_arguments_of_a_stream_take_no_seat(codec: Codec) -> None:
    with codec.stream_pool(max_streams=1) as pool:
        wrong: list[tuple[Any, dict[str, Any]]] = [
            (pool.decoder, {"n_q": 9}),
            (pool.decoder, {"first_level": 8}),
            (pool.encoder, {"n_q": 0}),
            (pool.encoder, {"sample_rate": 1}),
            (pool.encoder, {"look_ahead_s": -1.0}),
        ]
        for open_stream, arguments in wrong:
            with pytest.raises(ArgumentError, match=next(iter(arguments))):
                open_stream(**arguments)
        assert pool.num_streams == 0
