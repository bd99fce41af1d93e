"""Pools and streams come to an end: full, closed, dropped, forked, or with Python itself."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from platforms import posix
from pools import TIMEOUT_S, Gate, alone, assert_same, cut, held, random_codes, wait_until_full

from dmcodec.errors import StreamError
from dmcodec.runtime import Codec

CHUNKS = cut(random_codes(40), [5])


def test_a_full_pool_says_how_many_streams_it_takes(codec: Codec) -> None:
    with codec.stream_pool(max_streams=2) as pool:
        one, two = pool.decoder(), pool.decoder()
        with pytest.raises(StreamError, match=r"all 2 streams are open \(max_streams=2\); close one"):
            pool.decoder()
        one.close()
        three = pool.decoder()
        two.push(CHUNKS[0])
        del two  # without close, as a client that is gone
        four = pool.decoder()
        three.self = three  # type: ignore[attr-defined]  # a circle
        del three
        gc.disable()
        try:
            five = pool.decoder()
        finally:
            gc.enable()
        assert pool.num_streams == 2
        assert_same(alone(five, CHUNKS), alone(four, CHUNKS))


def test_a_closed_pool_lets_waiters_know(codec: Codec, gate: Gate) -> None:
    pool = codec.stream_pool()
    streams = [pool.decoder() for _ in range(3)]
    with ThreadPoolExecutor(5) as threads:
        running = held(gate, streams[0].push, threads)
        waiting = [threads.submit(stream.push, CHUNKS[0]) for stream in streams]
        wait_until_full(pool, 3)
        closing = threads.submit(pool.close)
        for future in waiting:
            with pytest.raises(StreamError, match="stream pool: closed while this push waited"):
                future.result(TIMEOUT_S)
        gate.open()
        closing.result(TIMEOUT_S)
        assert_same(running.result(), codec.stream_decoder().push(random_codes(5, seed=9)))
    for refused in (pool.decoder, pool.encoder, streams[1].reset, streams[1].finish):
        with pytest.raises(StreamError, match=r"stream pool: closed; open another"):
            refused()
    pool.close()  # again is fine
    streams[1].close()


def test_a_long_push_ends_with_its_pool(codec: Codec, gate: Gate) -> None:
    pool = codec.stream_pool()
    stream = pool.decoder()
    gate.shut()
    with ThreadPoolExecutor(2) as threads:
        push = threads.submit(stream.push, random_codes(80))
        assert gate.held.wait(TIMEOUT_S)
        closing = threads.submit(pool.close)
        while not pool.closed:
            pass
        gate.open()
        closing.result(TIMEOUT_S)
        with pytest.raises(StreamError, match="closed while this push ran"):
            push.result(TIMEOUT_S)


def test_closing_or_resetting_a_stream_ends_its_waiting_pushes(codec: Codec, gate: Gate) -> None:
    with codec.stream_pool() as pool, ThreadPoolExecutor(4) as threads:
        for end, words in (("close", "closed while"), ("reset", "reset while")):
            stream = pool.decoder()
            running = held(gate, stream.push, threads)
            waiting = threads.submit(stream.push, CHUNKS[0])
            wait_until_full(pool, 1)
            getattr(stream, end)()
            with pytest.raises(StreamError, match=f"stream: {words} this push waited"):
                waiting.result(TIMEOUT_S)
            gate.open()
            running.result(TIMEOUT_S)
            if end == "reset":
                assert_same(alone(stream, CHUNKS), alone(codec.stream_decoder(), CHUNKS))


def test_pools_and_streams_are_not_pickled_or_copied(codec: Codec) -> None:
    with codec.stream_pool() as pool:
        for thing in (pool, pool.decoder(), pool.encoder(look_ahead_s=0.1)):
            for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(StreamError, match="can't be pickled or copied; open one"):
                    attempt(thing)


def test_a_pool_that_nothing_refers_to_ends_its_thread(codec: Codec) -> None:
    def pool_threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("dmcodec-stream-pool")]

    before = set(pool_threads())
    pool = codec.stream_pool()
    stream = pool.decoder()
    [thread] = set(pool_threads()) - before
    dropped = weakref.ref(pool)
    del pool
    stream.push(CHUNKS[0])  # a stream keeps its pool
    assert dropped() is not None
    del stream
    gc.collect()
    assert dropped() is None
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


SCRIPT = """
import os, sys, threading
import numpy as np
from dmcodec.runtime import Codec
from dmcodec.errors import StreamError
codec = Codec.load(sys.argv[1], threads=1)
pool = codec.stream_pool()
stream = pool.decoder()
codes = np.zeros((8, 5), int)
stream.push(codes)
"""

ENDINGS = {
    "with a pool and a stream open": "",
    "by sys.exit": "sys.exit(7)",
    "while a thread pushes for ever": """
def work():
    other = pool.decoder()
    try:
        while True:
            other.push(codes)
    except StreamError:
        pass
threading.Thread(target=work, daemon=True).start()
stream.push(codes)
""",
    "while the loop's tasks still wait": """
import asyncio
async def main():
    for _ in range(9):
        asyncio.create_task(stream.push_async(codes))
    await asyncio.sleep(0)
asyncio.run(main())
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_python_exits(tiny_bundle: Path, ending: str) -> None:
    command = [sys.executable, "-c", SCRIPT + ENDINGS[ending], str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == (7 if "exit" in ending else 0), done.stderr
    assert done.stderr == ""


@posix
def test_a_forked_child_is_told(tiny_bundle: Path) -> None:
    child = """
pid = os.fork()
if pid == 0:
    try:
        for call in (pool.decoder, stream.finish, stream.reset, lambda: stream.push(codes), lambda: pool.num_streams):
            try:
                call()
            except StreamError as error:
                assert "made in another process" in str(error), error
                assert "in the process that uses them" in str(error), error
            else:
                raise AssertionError("no error")
        stream.close()
        pool.close()
        del stream, pool
        os._exit(0)  # as multiprocessing ends its children; the sessions of ONNX Runtime don't survive a fork
    finally:
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stream.push(codes)
print("parent goes on")
"""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT + child, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "parent goes on\n", "")


@posix
def test_ctrl_c_ends_a_push_that_waits(tiny_bundle: Path) -> None:
    """It is withdrawn, so that the stream goes on where it was."""
    script = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
expected = codec.stream_decoder()
expected.push(codes)
go, started, arrays = threading.Event(), threading.Event(), codec.graphs.arrays
def held(name, **inputs):
    started.set()
    go.wait()
    return arrays(name, **inputs)
codec.graphs.arrays = held
threading.Thread(target=pool.decoder().push, args=(codes,)).start()
started.wait()
threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    stream.push(codes + 1)
except KeyboardInterrupt:
    codec.graphs.arrays = arrays
    go.set()
assert np.allclose(stream.push(codes + 2), expected.push(codes + 2), atol=1e-5)
print("goes on")
"""
    command = [sys.executable, "-c", SCRIPT + script, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")
