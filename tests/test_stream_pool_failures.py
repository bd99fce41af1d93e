"""What goes wrong in a pool reaches the stream that it belongs to, in clear words, and no other."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pools import Gate, alone, assert_same, counts_of, cut, held, random_codes, wait_until_full

from dmcodec.errors import AudioError, BackendError, StreamError, TokensError
from dmcodec.runtime import Codec

CHUNKS = cut(random_codes(40), [5])


def test_a_wrong_push_is_refused_and_harms_nobody(codec: Codec) -> None:
    with codec.stream_pool() as pool:
        one, other, encoder = pool.decoder(), pool.decoder(), pool.encoder(look_ahead_s=0.1)
        parts: list[NDArray[Any]] = []
        for chunk in CHUNKS:
            for wrong in (np.full((8, 3), 64), np.zeros((7, 3), int), np.zeros((8, 0), int), "text"):
                with pytest.raises(TokensError):
                    other.push(wrong)
            with pytest.raises(AudioError):
                encoder.push(np.full(500, np.nan))
            with pytest.raises(AudioError):
                asyncio.run(encoder.push_async(np.zeros((2, 500))))
            parts.append(one.push(chunk))
            assert other.push(chunk).shape == parts[-1].shape
        parts.append(one.finish())
        assert encoder.finish().shape == (8, 0)
    assert_same(np.concatenate(parts), alone(codec.stream_decoder(), CHUNKS))


def test_only_the_push_that_fails_alone_fails(codec: Codec, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that fails whenever code 63 is in its batch, as one whose memory runs out for one clip."""
    gated = codec.graphs.arrays

    def fail(name: str, **inputs: Any) -> Any:
        if name == "dequantizer" and 63 in inputs["codes"][0]:
            raise BackendError("dequantizer.onnx: failed to run (made up)")
        return gated(name, **inputs)

    monkeypatch.setattr(codec.graphs, "arrays", fail)
    clips = [np.minimum(random_codes(10, seed), 62) for seed in range(4)]
    bad = clips[2].copy()
    bad[0, 3] = 63
    with codec.stream_pool(max_wait_ms=0) as pool, ThreadPoolExecutor(6) as threads:
        streams = [pool.decoder() for _ in clips]
        first = held(gate, pool.decoder().push, threads)
        pushes = [
            threads.submit(s.push, bad if row == 2 else clip)
            for row, (s, clip) in enumerate(zip(streams, clips, strict=True))
        ]
        wait_until_full(pool, 4)
        gate.open()
        first.result()
        with pytest.raises(BackendError, match="made up"):
            pushes[2].result()
        again = streams[2].push(clips[2])  # the stream is as it was before
        for row, clip in enumerate(clips):
            audio = again if row == 2 else pushes[row].result()
            assert_same(np.concatenate([audio, streams[row].finish()]), alone(codec.stream_decoder(), [clip]))


def test_a_fault_that_is_no_error_of_ours_reaches_only_its_stream(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = codec.graphs.arrays

    def fail(name: str, **inputs: Any) -> Any:
        if name == "decoder_upsampler" and inputs["features"].shape[2] == 2:
            raise MemoryError
        return arrays(name, **inputs)

    monkeypatch.setattr(codec.graphs, "arrays", fail)
    with codec.stream_pool() as pool:
        stream, other = pool.decoder(), pool.decoder()
        with pytest.raises(MemoryError):
            stream.push(CHUNKS[0])
        monkeypatch.setattr(codec.graphs, "arrays", arrays)
        assert_same(alone(stream, CHUNKS), alone(other, CHUNKS))


def test_pushes_behind_one_that_fails_fail_with_it(codec: Codec, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise their audio would join on to a hole."""
    gated = codec.graphs.arrays

    def fail(name: str, **inputs: Any) -> Any:
        outputs = gated(name, **inputs)
        if broken.is_set():
            raise BackendError("made up")
        return outputs

    broken = threading.Event()
    monkeypatch.setattr(codec.graphs, "arrays", fail)
    with codec.stream_pool(max_wait_ms=0) as pool, ThreadPoolExecutor(2) as threads:
        stream = pool.decoder()
        first = held(gate, stream.push, threads)
        second = threads.submit(stream.push, CHUNKS[0])
        wait_until_full(pool, 1)
        broken.set()
        gate.open()
        with pytest.raises(BackendError, match="made up"):
            first.result()
        with pytest.raises(StreamError, match="an earlier push failed"):
            second.result()
        broken.clear()
        assert_same(alone(stream, CHUNKS), alone(codec.stream_decoder(), CHUNKS))


def test_a_push_of_a_new_clip_outlives_the_failure_of_the_old_one(
    codec: Codec, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = codec.graphs.arrays

    def fail(name: str, **inputs: Any) -> Any:
        outputs = gated(name, **inputs)
        if broken.is_set():
            broken.clear()
            raise BackendError("made up")
        return outputs

    broken = threading.Event()
    monkeypatch.setattr(codec.graphs, "arrays", fail)
    with codec.stream_pool(max_wait_ms=0) as pool, ThreadPoolExecutor(2) as threads:
        stream = pool.decoder()
        first = held(gate, stream.push, threads)
        stream.reset()
        second = threads.submit(stream.push, CHUNKS[0])
        wait_until_full(pool, 1)
        broken.set()
        gate.open()
        with pytest.raises(BackendError, match="made up"):
            first.result()
        parts = [second.result(), *(stream.push(chunk) for chunk in CHUNKS[1:]), stream.finish()]
        assert_same(np.concatenate(parts), alone(codec.stream_decoder(), CHUNKS))


def test_a_long_push_that_fails_halfway_leaves_only_reset(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, runs = codec.graphs.arrays, []

    def fail(name: str, **inputs: Any) -> Any:
        runs.append(name)
        if runs.count("dequantizer") == 2:
            raise BackendError("made up")
        return arrays(name, **inputs)

    monkeypatch.setattr(codec.graphs, "arrays", fail)
    with codec.stream_pool() as pool:
        stream = pool.decoder()
        with pytest.raises(BackendError, match="made up"):
            stream.push(random_codes(60))
        with pytest.raises(StreamError, match=r"after a part of it had run; call reset\(\)"):
            stream.push(CHUNKS[0])
        runs.append("dequantizer")
        stream.reset()
        assert_same(alone(stream, CHUNKS), alone(codec.stream_decoder(), CHUNKS))


def test_a_cancelled_push_that_waits_was_never_made(codec: Codec, gate: Gate) -> None:
    async def main(pool: Any) -> NDArray[Any]:
        stream, other = pool.decoder(), pool.decoder()
        parts = [await stream.push_async(CHUNKS[0])]
        gate.shut()
        running = asyncio.create_task(other.push_async(CHUNKS[0]))
        await asyncio.to_thread(gate.held.wait)
        waiting = asyncio.create_task(stream.push_async(CHUNKS[7]))
        behind = asyncio.create_task(stream.push_async(CHUNKS[1]))
        ending = asyncio.create_task(stream.finish_async())
        await asyncio.sleep(0)
        for task in (waiting, ending):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.open()
        parts.append(await behind)
        await running
        other.close()
        gate.shut()
        blocker = asyncio.create_task(pool.decoder().push_async(CHUNKS[0]))
        await asyncio.to_thread(gate.held.wait)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.push_async(CHUNKS[6]), 0.01)
        gate.open()
        await blocker
        return np.concatenate([*parts, await stream.push_async(CHUNKS[2]), await stream.finish_async()])

    with codec.stream_pool(max_wait_ms=0) as pool:
        assert_same(asyncio.run(main(pool)), alone(codec.stream_decoder(), CHUNKS[:3]))


def test_a_cancelled_push_that_runs_leaves_only_reset(codec: Codec, gate: Gate) -> None:
    async def main(pool: Any) -> None:
        stream, other = pool.decoder(), pool.decoder()
        gate.shut()
        running = asyncio.create_task(stream.push_async(CHUNKS[0]))
        await asyncio.to_thread(gate.held.wait)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.open()
        for call in (stream.push_async(CHUNKS[1]), stream.finish_async()):
            with pytest.raises(StreamError, match=r"cancelled while it ran, and its result is lost; call reset\(\)"):
                await call
        stream.reset()
        for one in (stream, other):
            audio = [*[await one.push_async(chunk) for chunk in CHUNKS], await one.finish_async()]
            assert_same(np.concatenate(audio), alone(codec.stream_decoder(), CHUNKS))

    with codec.stream_pool() as pool:
        asyncio.run(main(pool))


def test_a_greedy_client_that_never_reads_waits_for_its_turn(codec: Codec, gate: Gate) -> None:
    """It floods its stream with pushes: few are in the pool, and others come between them."""
    order: list[str] = []

    async def noted(name: str, push: Any) -> NDArray[Any]:
        audio: NDArray[Any] = await push
        order.append(name)
        return audio

    async def main(pool: Any) -> NDArray[Any]:
        greedy, modest, first = pool.decoder(), pool.decoder(), pool.decoder()
        gate.shut()
        held_push = asyncio.create_task(first.push_async(CHUNKS[0]))
        await asyncio.to_thread(gate.held.wait)
        flood = [asyncio.create_task(noted("greedy", greedy.push_async(chunk))) for chunk in CHUNKS * 3]
        await asyncio.sleep(0)
        assert counts_of(pool) == (4, 20)
        parts = asyncio.create_task(noted("modest", modest.push_async(CHUNKS[0])))
        await asyncio.sleep(0)
        gate.open()
        await held_push
        await parts
        audio = await modest.push_async(CHUNKS[1])
        order.append("modest")
        assert not all(task.done() for task in flood)
        await asyncio.wait(flood)
        assert_same(audio, codec_push_two())
        return np.concatenate([task.result() for task in flood])

    def codec_push_two() -> NDArray[Any]:
        single = codec.stream_decoder()
        single.push(CHUNKS[0])
        return single.push(CHUNKS[1])

    with codec.stream_pool(max_wait_ms=0) as pool:
        audio = asyncio.run(main(pool))
    single = codec.stream_decoder()
    assert_same(audio, np.concatenate([single.push(chunk) for chunk in CHUNKS * 3]))  # in the order of the calls
    assert order[:2].count("modest") == 1
    assert order.count("greedy") == 24


@pytest.mark.parametrize(
    ("longest_s", "expected"), [(1e9, [1, 16, 16, 5]), (1e-9, [1, *[4] * 9, 1])], ids=["fast", "slow"]
)
def test_more_streams_than_a_batch_holds_take_turns(
    codec: Codec, gate: Gate, monkeypatch: pytest.MonkeyPatch, longest_s: float, expected: list[int]
) -> None:
    """Large batches where they are fast, and else the smallest that reads the weights for several."""
    monkeypatch.setattr("dmcodec.runtime.pool.scheduler.BATCH_S", longest_s)
    count = 37

    async def main(pool: Any) -> None:
        first, *streams = [pool.decoder() for _ in range(count + 1)]
        gate.shut()
        running = asyncio.create_task(first.push_async(CHUNKS[0]))
        await asyncio.to_thread(gate.held.wait)
        tasks = [asyncio.create_task(stream.push_async(CHUNKS[0])) for stream in streams]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(running, *tasks)

    with codec.stream_pool(max_wait_ms=0) as pool:
        asyncio.run(main(pool))
    assert gate.batches() == expected


def test_streams_out_of_turn(codec: Codec) -> None:
    with codec.stream_pool() as pool:
        stream = pool.decoder()
        assert stream.finish().shape == (0,)
        with pytest.raises(StreamError, match=r"push after finish; call reset\(\)"):
            stream.push(CHUNKS[0])
        with pytest.raises(StreamError, match="finished already"):
            asyncio.run(stream.finish_async())
        stream.close()
        for call in (stream.finish, stream.reset, lambda: stream.push(CHUNKS[0])):
            with pytest.raises(StreamError, match="stream: closed; open another in its pool"):
                call()
        stream.close()
        with pytest.raises(StreamError, match=r"left open.*last 4 frames"), pool.decoder() as left:
            left.push(CHUNKS[0])
        with pytest.raises(KeyError), pool.encoder(look_ahead_s=0.1) as broken:  # noqa: PT012 - the error itself
            broken.push(np.zeros(5000, np.float32))
            raise KeyError
        with pool.decoder() as closed:
            closed.push(CHUNKS[0])
            closed.close()
        assert pool.num_streams == 0
