"""The time that a benchmark may take: how many rounds it runs, and what it leaves out."""

from __future__ import annotations

import math
import time

# Fewer have no quartiles.
MIN_ROUNDS = 3


class Budget:
    """Hands out rounds of a limited time.

    Args:
        seconds: the time from now on; None: no limit, and all rounds are run.
        rounds: the most rounds of an operation.
    """

    def __init__(self, seconds: float | None, rounds: int) -> None:
        self._end = math.inf if seconds is None else time.perf_counter() + seconds
        self._rounds = rounds
        self._left_out: list[str] = []

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was left out, and why."""
        return tuple(self._left_out)

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self._end)

    def left_s(self) -> float:
        """Return the seconds that are left, at least 0; infinite without a limit."""
        return max(0.0, self._end - time.perf_counter())

    def rounds(self, round_s: float, share: float) -> int:
        """Return how many rounds of `round_s` seconds to run in a share of the time that is left."""
        if not self.is_limited:
            return self._rounds
        return min(self._rounds, max(MIN_ROUNDS, int(self.left_s() * share / max(round_s, 1e-9))))

    def allows(self, what: str, needed_s: float) -> bool:
        """Return whether there is time for something; note it as left out where there is not."""
        if needed_s <= self.left_s():
            return True
        self.leave_out(what, f"about {math.ceil(needed_s)} s, {math.floor(self.left_s())} s were left")
        return False

    def leave_out(self, what: str, why: str) -> None:
        """Note something as left out."""
        self._left_out.append(f"{what} ({why})")
