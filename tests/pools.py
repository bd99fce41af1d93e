"""What the tests of stream pools share: clips, what single streams make of them, and a gate for the graphs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dmcodec.runtime.backend import Graphs

TIMEOUT_S = 120.0


def random_codes(frames: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 64, (8, frames))


def cut(clip: NDArray[Any], sizes: Sequence[int]) -> list[NDArray[Any]]:
    """Chunks along the last axis, of these sizes again and again."""
    chunks: list[NDArray[Any]] = []
    start = 0
    while start < clip.shape[-1]:
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(clip[..., start : start + size])
        start += size
    return chunks


def alone(stream: Any, chunks: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """What a single stream returns, joined."""
    return np.concatenate([*(stream.push(chunk) for chunk in chunks), stream.finish()], axis=-1)


def assert_same(got: NDArray[Any], expected: NDArray[Any]) -> None:
    """Audio within 1e-5 of full scale; codes equal."""
    assert got.dtype == expected.dtype
    if got.dtype == np.float32:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))
    else:
        np.testing.assert_array_equal(got, expected)


class Gate:
    """Stands before graphs of a codec: holds their runs while it is shut, and records them.

    Attributes:
        runs: graph and inputs of each run.
        held: set while a run is held.
    """

    def __init__(self, graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[tuple[str, dict[str, Any]]] = []
        self.held = threading.Event()
        self._open = threading.Event()
        self._open.set()
        arrays = graphs.arrays

        def gated(name: str, **inputs: Any) -> Any:
            self.runs.append((name, inputs))
            if not self._open.is_set():
                self.held.set()
                assert self._open.wait(TIMEOUT_S)
            return arrays(name, **inputs)

        monkeypatch.setattr(graphs, "arrays", gated)
        # The time of a run that is held says nothing.
        monkeypatch.setattr("dmcodec.runtime.pool.scheduler.BATCH_S", 1e9)

    def shut(self) -> None:
        self.held.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def batches(self, graph: str = "decoder_recurrent") -> list[int]:
        """Batch sizes of the runs of a graph of the decoder."""
        return [inputs["hidden"].shape[1] for name, inputs in self.runs if name == graph]


def held(gate: Gate, push: Callable[[Any], Any], threads: ThreadPoolExecutor) -> Any:
    """Push from a thread, and return its future when the graphs hold it."""
    gate.shut()
    future = threads.submit(push, random_codes(5, seed=9))
    assert gate.held.wait(TIMEOUT_S)
    return future


def wait_until_full(pool: Any, waiting: int) -> None:
    """Wait until so many jobs wait in the pool or at its door."""
    wait_until(lambda: sum(counts_of(pool)) >= waiting, lambda: f"{counts_of(pool)} wait, not {waiting}")


def wait_until(reached: Callable[[], bool], problem: Callable[[], str]) -> None:
    """Wait until something was reached; AssertionError with the problem, where it never is."""
    clock = threading.Event()
    for _ in range(int(TIMEOUT_S * 200)):
        if reached():
            return
        clock.wait(0.005)
    raise AssertionError(problem())


def counts_of(pool: Any) -> tuple[int, int]:
    """Jobs in the pool that don't run, and at its door."""
    seats = [seat for scheduler in pool._schedulers.values() for seat in scheduler._seats]
    return (
        sum(len(seat.jobs) - bool(seat.running) for seat in seats),
        sum(len(seat.door) for seat in seats),
    )
