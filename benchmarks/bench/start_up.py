"""`dmcodec bench --start-up`: what the first call of a process costs: import, loading, first encode and decode.

Each round is a new process (`main`). It takes the time at the end of each step; CPU time is user and system time of all
threads, and begins with the start of Python.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dmcodec.benchmarks.load import Load, LoadWatch
from dmcodec.benchmarks.machine import PACKAGES, Machine, describe_machine, utc_now
from dmcodec.benchmarks.tables import Table, count_of, milliseconds
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Bundle
from dmcodec.cpus import default_threads
from dmcodec.errors import ArgumentError, DmcodecError

CLIP_S = 1.0
# Step -> what it does. The sums of a start are over the steps up to the first encode, and to the first decode.
STEPS = {
    "python": "start of Python, without dmcodec",
    "import": "from dmcodec.runtime import Codec",
    "load": "Codec.load",
    "first encode": f"{CLIP_S:g} s of speech; loads the encoder's graphs",
    "first decode": "of its tokens; loads the decoder's graphs",
    "encode": "once more",
    "decode": "once more",
}
START = ("python", "import", "load", "first encode")


@dataclass(frozen=True)
class Step:
    """One step; medians over the processes.

    Attributes:
        cpu_s: user and system time of all threads.
        wall_s: None for the start of Python, which the process can't time.
        cpu_runs_s: of each process.
    """

    name: str
    cpu_s: float
    wall_s: float | None
    cpu_runs_s: tuple[float, ...]


@dataclass(frozen=True)
class StartUpResult:
    """The result.

    Attributes:
        first_call_cpu_s: start of Python, import, loading and first encode together, the median over the processes.
        first_calls_cpu_s: the same with the first decode.
        first_call_s: time from starting the process to the end of the first encode, likewise.
        checked_before: whether `Codec.load` found the bundle's files as they were checked before, so that it did not
            hash them.
    """

    bundle: str
    model_id: str
    size_bytes: int
    rounds: int
    threads: int
    steps: tuple[Step, ...]
    first_call_cpu_s: float
    first_calls_cpu_s: float
    first_call_s: float
    checked_before: bool
    load: Load
    machine: Machine
    date: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"is_measurement": self.load.is_measurement, **asdict(self)}


def run_start_up(bundle: Path, threads: int | None, rounds: int, command: str, progress: Progress) -> StartUpResult:
    """Measure `rounds` new processes after one that warms up the system's caches.

    Raises:
        ArgumentError: no rounds.
        BundleError: the bundle can't be opened.
        DmcodecError: a process fails.
    """
    if rounds < 1:
        raise ArgumentError(f"rounds must be at least 1, not {rounds}")
    machine, opened = describe_machine(PACKAGES), Bundle.open(bundle)
    runs = []
    watch = LoadWatch(threads or default_threads())
    for done in range(rounds + 1):
        progress("processes", done, rounds + 1)
        runs.append(_run_process(bundle, threads))
    progress("processes", rounds + 1, rounds + 1)
    runs = runs[1:]
    return StartUpResult(
        bundle=str(bundle),
        model_id=opened.manifest.model_id,
        size_bytes=opened.manifest.size_bytes,
        rounds=rounds,
        threads=threads or default_threads(),
        steps=tuple(_step(name, [run["steps"][name] for run in runs]) for name in STEPS),
        first_call_cpu_s=statistics.median(_sum(run, START) for run in runs),
        first_calls_cpu_s=statistics.median(_sum(run, (*START, "first decode")) for run in runs),
        first_call_s=statistics.median(run["first_call_s"] for run in runs),
        checked_before=all(run["checked_before"] for run in runs),
        load=watch.stop(),
        machine=machine,
        date=utc_now(),
        command=command,
    )


def _step(name: str, runs: list[list[float | None]]) -> Step:
    cpu_s = tuple(cpu for cpu, _ in runs if cpu is not None)
    wall_s = [wall for _, wall in runs if wall is not None]
    return Step(name, statistics.median(cpu_s), statistics.median(wall_s) if wall_s else None, cpu_s)


def _sum(run: dict[str, Any], names: tuple[str, ...]) -> float:
    return sum(run["steps"][name][0] for name in names)


def _run_process(bundle: Path, threads: int | None) -> dict[str, Any]:
    request = json.dumps({"bundle": str(bundle), "threads": threads, "start_s": time.time()})
    done = subprocess.run([sys.executable, "-P", "-c", _PROGRAM, request], capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise DmcodecError(f"{bundle}: the measuring process failed: {last_line}")
    values: dict[str, Any] = json.loads(done.stdout)
    return values


# Nothing of dmcodec is imported before the step that measures it.
_PROGRAM = """
import json, sys, time
steps, at = {}, (0.0, None)
def mark(name):
    global at
    now = time.process_time(), time.perf_counter()
    steps[name] = now[0] - at[0], None if at[1] is None else now[1] - at[1]
    at = time.process_time(), time.perf_counter()
request = json.loads(sys.argv[1])
mark("python")
from dmcodec.runtime import Codec
mark("import")
codec = Codec.load(request["bundle"], threads=request["threads"])
mark("load")
from dmcodec.sample import speech
waveform = speech(round(CLIP * codec.sample_rate), codec.sample_rate)
at = time.process_time(), time.perf_counter()
tokens = codec.encode(waveform, codec.sample_rate)
mark("first encode")
first_call_s = time.time() - request["start_s"]
codec.decode(tokens)
mark("first decode")
codec.encode(waveform, codec.sample_rate)
mark("encode")
codec.decode(tokens)
mark("decode")
from dmcodec.bundle import checked_before
found = {"steps": steps, "first_call_s": first_call_s, "checked_before": checked_before(codec.bundle)}
sys.stdout.write(json.dumps(found))
""".replace("CLIP", str(CLIP_S))


def start_up_tables(result: StartUpResult) -> list[Table]:
    """Return the steps and their sums as a table."""
    lines = [(step.name, step.cpu_s, step.wall_s, STEPS[step.name]) for step in result.steps]
    above = "all steps up to there"
    lines.append(("to the end of the first encode", result.first_call_cpu_s, result.first_call_s, above))
    lines.append(("to the end of the first decode", result.first_calls_cpu_s, None, above))
    rows = tuple(
        (name, what, milliseconds(cpu_s), "-" if wall_s is None else milliseconds(wall_s))
        for name, cpu_s, wall_s, what in lines
    )
    known = "found as they were checked before" if result.checked_before else "all hashed"
    note = (
        f"Medians of new processes, n = {result.rounds}, after one more. CPU: user and system time of all threads. "
        f"{count_of(result.threads, 'thread')}. The files of the bundle were {known}."
    )
    title = "Start-up" if result.load.is_measurement else "Start-up (not a measurement)"
    return [Table(title, ("step", "", "CPU ms", "ms"), rows, labels=2, note=note)]
