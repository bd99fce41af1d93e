"""Many files: batches stay within their room, and outcomes come in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dmcodec.errors import AudioError
from dmcodec.runtime.file_batches import Outcome, run_work


class Counted:
    """Work on numbers: each is a clip of so many seconds, 99 a long one, and a negative one can't be read."""

    total_s = 40.0
    in_sets = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.lock, self.now_s, self.most_s = threading.Lock(), 0.0, 0.0

    def read(self, item: float) -> tuple[float, float] | None:
        if item < 0:
            raise AudioError(f"{item}: can't be read")
        return None if item == 99 else (item, item)

    def compute(self, clips: Sequence[float], alone: bool) -> list[float]:
        size = len(clips) * max(clips)
        assert alone == (self.total_s // size < min(self.workers, 4))
        with self.lock:
            self.now_s += size
            self.most_s = max(self.most_s, self.now_s)
        time.sleep(0.002)
        with self.lock:
            self.now_s -= size
        return [2 * clip for clip in clips]

    def write(self, item: float, result: float, compute_s: float) -> dict[str, Any]:
        assert compute_s > 0
        return {"item": item, "result": result}

    def whole(self, item: float, progress: Callable[[float, float], None]) -> dict[str, Any]:
        progress(1, 2)
        return {"item": item, "result": 2 * item}


@pytest.mark.parametrize("workers", [1, 3, 64])
def test_outcomes_come_in_order_and_batches_stay_within_their_room(workers: int) -> None:
    items = [float(index % 31) + 0.5 for index in range(200)]
    items[0] = items[50] = items[51] = items[199] = 99
    items[7] = items[120] = -1
    work, outcomes, seen = Counted(workers), list[Outcome](), list[tuple[float, float]]()
    run_work(work, items, outcomes.append, lambda _item: lambda done, total: seen.append((done, total)))
    assert [outcome.index for outcome in outcomes] == list(range(200))
    for item, outcome in zip(items, outcomes, strict=True):
        assert (outcome.facts is None) == (item < 0)
        assert outcome.facts is None or outcome.facts == {"item": item, "result": 2 * item}
    assert work.most_s <= Counted.total_s
    assert seen == [(1, 2)] * 4


class InSets(Counted):
    """Makes its batches itself."""

    in_sets = True

    def __init__(self) -> None:
        super().__init__(1)
        self.calls: list[int] = []

    def compute(self, clips: Sequence[float], alone: bool) -> list[float]:
        assert alone
        self.calls.append(len(clips))
        return [2 * clip for clip in clips]


def test_on_a_gpu_a_whole_set_is_one_call() -> None:
    work, outcomes = InSets(), list[Outcome]()
    run_work(work, [1.0] * 200, outcomes.append, lambda _item: lambda _done, _total: None)
    assert [outcome.facts for outcome in outcomes] == [{"item": 1.0, "result": 2.0}] * 200
    assert len(work.calls) <= 4
    assert sum(work.calls) == 200


def test_after_an_interruption_what_is_computed_is_recorded() -> None:
    outcomes: list[Outcome] = []

    def record(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if len(outcomes) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_work(Counted(2), [1.0] * 2000, record, lambda _item: lambda _done, _total: None)
    assert 5 <= len(outcomes) < 2000
    assert [outcome.index for outcome in outcomes] == list(range(len(outcomes)))
