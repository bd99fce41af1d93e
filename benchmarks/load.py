"""Whether a machine was free enough for its times to be a measurement: its load, its CPUs and the threads that ran."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from dmcodec.cpus import usable_cpus

from .tables import count_of

# A load average falls by only two thirds in a minute, so an idle machine has some left of what ended before.
_LEFT_OVER = 1.0
# Share of the CPUs that the system itself may take.
_SYSTEM_SHARE = 0.1
_PROC_STAT = Path("/proc/stat")


@dataclasses.dataclass(frozen=True)
class Load:
    """The load of a machine during a measurement. Unknown values are None.

    Attributes:
        cpus: CPUs that this process may use.
        threads: CPU threads of the measurement.
        at_start, at_end: load averages of the last minute.
        other_cpus: CPUs that other processes kept busy, on average; of the whole machine, also around a container.
        problems: why the times are not a measurement, in words; empty where they are one.
    """

    cpus: int
    threads: int
    at_start: float | None
    at_end: float | None
    other_cpus: float | None
    problems: tuple[str, ...]

    @property
    def is_measurement(self) -> bool:
        """Whether there were CPUs enough."""
        return not self.problems

    def line(self) -> str:
        """Return the load in a few words."""
        averages = f"load average {_number(self.at_start)} at the start, {_number(self.at_end)} at the end"
        others = "" if self.other_cpus is None else f", other processes took {self.other_cpus:.2f} CPUs"
        return f"{averages}{others}; {count_of(self.threads, 'thread')} on {count_of(self.cpus, 'usable CPU')}"

    def warning(self) -> str:
        """Return the sentence that stands over the results; empty where they are a measurement."""
        if self.is_measurement:
            return ""
        return f"NOT A MEASUREMENT: {'; '.join(self.problems)}. Run it again on an idle machine."


class LoadWatch:
    """Looks at the load from its making on.

    Args:
        threads: CPU threads of what is measured.
        bursts: whether other work of this process, such as compiling, takes more threads for a while.
    """

    def __init__(self, threads: int, bursts: bool = False) -> None:
        self._cpus, self._threads, self._bursts = usable_cpus(), threads, bursts
        self._at_start = load_average()
        self._start, self._busy_s, self._own_s = time.perf_counter(), _busy_s(), _own_s()

    def stop(self) -> Load:
        """Return the load up to now."""
        at_end, other = load_average(), self._other_cpus()
        problems = _problems(self._cpus, self._threads, self._at_start, at_end, other, self._bursts)
        return Load(self._cpus, self._threads, self._at_start, at_end, other, problems)

    def _other_cpus(self) -> float | None:
        busy_s, elapsed_s = _busy_s(), time.perf_counter() - self._start
        if busy_s is None or self._busy_s is None or elapsed_s <= 0:
            return None
        return max(0.0, (busy_s - self._busy_s - (_own_s() - self._own_s)) / elapsed_s)


def load_average() -> float | None:
    """Return the load average of the last minute; None where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _problems(
    cpus: int, threads: int, at_start: float | None, at_end: float | None, other_cpus: float | None, bursts: bool
) -> tuple[str, ...]:
    """Return why times are not a measurement: each finding, where the load exceeds the CPUs that are left for it."""
    own = min(threads, cpus)
    free = cpus - own
    found = []
    if at_start is not None and at_start > free + _LEFT_OVER:
        found.append(
            f"the load average was {at_start:.2f} at the start, and {own} of {cpus} usable CPUs were to be measured"
        )
    limit = cpus + _LEFT_OVER + (own if bursts else 0)
    if at_end is not None and at_end > limit:
        found.append(f"the load average was {at_end:.2f} at the end, on {cpus} usable CPUs")
    spare = max(cpus, os.cpu_count() or cpus) - own  # /proc/stat counts the CPUs of the whole machine
    if other_cpus is not None and other_cpus > spare + _SYSTEM_SHARE * cpus:
        found.append(f"other processes took {other_cpus:.2f} CPUs meanwhile, where {spare} were spare")
    return tuple(found)


def _busy_s() -> float | None:
    """Return the CPU seconds that all processes of the machine have taken; None where the system does not tell."""
    try:
        fields = _PROC_STAT.read_text(encoding="ascii").split("\n", 1)[0].split()
        user, nice, system, _idle, _wait, irq, soft = (int(field) for field in fields[1:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Return the CPU seconds of this process, and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
