"""`dmcodec bench --corpus DIR`: `dmcodec tokenize` beside `encode_batch` on the same clips in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dmcodec.audio import Waveform
from dmcodec.benchmarks.machine import PACKAGES, Machine, describe_machine, utc_now
from dmcodec.benchmarks.tables import Table
from dmcodec.benchmarks.timing import Progress, paired_speedup
from dmcodec.errors import ArgumentError, DmcodecError
from dmcodec.runtime import Codec
from dmcodec.runtime.batching import WHOLE_S
from dmcodec.runtime.corpus.clips import Clips
from dmcodec.runtime.corpus.sources.find import find_corpus

# Of clips in memory: 230 MB.
MAX_MEMORY_S = 3600.0
_EVERY_S = 0.05
_PROC = Path("/proc")


@dataclass(frozen=True)
class TokenizeRun:
    """One run of the command.

    Attributes:
        run_s: from the start of the workers to the last shard, which reading and writing are part of.
        command_s: of the whole command, with the start of Python and the plan.
        cpu_s: CPU time of all its processes, with the start of each.
        peak_rss_bytes: most memory of all its processes together; None where the system does not tell.
    """

    run_s: float
    command_s: float
    cpu_s: float
    peak_rss_bytes: int | None


@dataclass(frozen=True)
class CorpusResult:
    """The result. Runs of both kinds alternate: A B A B.

    Attributes:
        memory_s, memory_cpu_s: time and CPU time of `encode_batch` on all clips in memory, with as many threads as
            there are workers.
        runs: of `dmcodec tokenize`.
        ratio: median over the pairs of memory_s / run_s: the share of the throughput of `encode_batch`.
        cpu_ratio: the same of CPU times, which other load on the machine changes less.
    """

    corpus: str
    model_id: str
    clips: int
    audio_s: float
    workers: int
    memory_s: tuple[float, ...]
    memory_cpu_s: tuple[float, ...]
    runs: tuple[TokenizeRun, ...]
    ratio: float
    cpu_ratio: float
    machine: Machine
    date: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def run_corpus_bench(
    corpus: str, bundle: Path, workers: int, rounds: int, command: str, progress: Progress
) -> CorpusResult:
    """Measure a corpus of short clips.

    Args:
        corpus: as an argument of `dmcodec tokenize`.
        bundle: of the codec, which runs on the CPU.
        workers: processes of `tokenize`, and threads of `encode_batch`.
        rounds: pairs of runs; another run of each comes first, and is not counted.
        command: for the record.
        progress: called with the stage and the runs that are done.

    Raises:
        ArgumentError: long clips, or more than an hour of audio.
        DmcodecError: a clip can't be read, or `tokenize` fails.
    """
    machine = describe_machine(PACKAGES)
    codec = Codec.load(bundle, threads=workers)
    clips = _in_memory(corpus, codec.sample_rate)
    memory: list[tuple[float, float]] = []
    runs: list[TokenizeRun] = []
    for done in range(rounds + 1):
        progress("rounds", done, rounds + 1)
        start, cpu_start = time.perf_counter(), time.process_time()
        codec.encode_batch(clips, codec.sample_rate)
        memory.append((time.perf_counter() - start, time.process_time() - cpu_start))
        runs.append(_tokenized(corpus, bundle, workers))
    progress("rounds", rounds + 1, rounds + 1)
    runs, (memory_s, memory_cpu_s) = runs[1:], zip(*memory[1:], strict=True)
    return CorpusResult(
        corpus=corpus,
        model_id=codec.bundle.manifest.model_id,
        clips=len(clips),
        audio_s=sum(map(len, clips)) / codec.sample_rate,
        workers=workers,
        memory_s=memory_s,
        memory_cpu_s=memory_cpu_s,
        runs=tuple(runs),
        ratio=paired_speedup([run.run_s for run in runs], memory_s),
        cpu_ratio=paired_speedup([run.cpu_s for run in runs], memory_cpu_s),
        machine=machine,
        date=utc_now(),
        command=command,
    )


def _in_memory(corpus: str, rate: int) -> list[Waveform]:
    items = list(find_corpus([corpus]).items())
    reader = Clips(items, rate, WHOLE_S)
    clips: list[Waveform] = []
    for item in items:
        clip = reader.read(item)
        if clip is None:
            raise ArgumentError(f"{item.source}: is longer than {WHOLE_S:g} s; --corpus measures short clips")
        clips.append(clip)
        if sum(map(len, clips)) > MAX_MEMORY_S * rate:
            raise ArgumentError(f"--corpus {corpus}: holds more than {MAX_MEMORY_S:g} s; name a part of it")
    return clips


def _tokenized(corpus: str, bundle: Path, workers: int) -> TokenizeRun:
    with tempfile.TemporaryDirectory(prefix="dmcodec.") as folder:
        command = [
            sys.executable, "-P", "-m", "dmcodec", "tokenize", corpus, "--out", str(Path(folder, "out")), "--workers",
            str(workers), "--bundle", str(bundle), "--json",
        ]  # fmt: skip
        before, start = _children_cpu_s(), time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            memory = _PeakMemory(process.pid)
            out, errors = process.communicate()
            command_s = time.perf_counter() - start
            memory.stop()
        if process.returncode:
            last_line = (errors.strip() or f"exit status {process.returncode}").splitlines()[-1]
            raise DmcodecError(f"dmcodec tokenize {corpus} failed: {last_line.removeprefix('error: ')}")
        run_s = float(json.loads(out)["elapsed_s"])
    return TokenizeRun(run_s, command_s, _children_cpu_s() - before, memory.peak_bytes)


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


class _PeakMemory:
    """Reads the memory of a process and all processes below it, again and again; shared pages count in each."""

    def __init__(self, pid: int) -> None:
        self._pid, self.peak_bytes = pid, None if not _PROC.is_dir() else 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if self.peak_bytes is not None:
            self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            self.peak_bytes = max(self.peak_bytes or 0, sum(map(_rss_bytes, _tree(self._pid))))


def _tree(pid: int) -> list[int]:
    """Return a process and all processes below it."""
    found = [pid]
    for each in found:  # grows
        try:
            for children in (_PROC / str(each) / "task").glob("*/children"):
                found += map(int, children.read_text().split())
        except OSError:  # it has ended
            continue
    return found


def _rss_bytes(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def corpus_table(result: CorpusResult) -> Table:
    """Return the result as a table."""

    def middle(values: Sequence[float]) -> float:
        return sorted(values)[len(values) // 2]

    memory_s, run_s = middle(result.memory_s), middle([run.run_s for run in result.runs])
    peaks = [run.peak_rss_bytes for run in result.runs if run.peak_rss_bytes is not None]
    peak = f"{max(peaks) / 1e6:.0f} MB" if peaks else "unknown"
    command_s, cpu_s = middle([run.command_s for run in result.runs]), middle([run.cpu_s for run in result.runs])
    memory_cpu_s = middle(result.memory_cpu_s)
    rows = (
        _row("encode_batch, in memory", result, memory_s, memory_cpu_s, "1", ""),
        _row("tokenize", result, run_s, cpu_s, f"{result.ratio:.2f}", peak),
        _row("tokenize, whole command", result, command_s, cpu_s, "", ""),
    )
    title = f"{result.clips} clips, {result.audio_s:.0f} s of audio, {result.workers} workers or threads"
    note = (
        f"Medians of {len(result.runs)} runs, A B A B; throughput is the median of the ratios. CPU use: of the CPUs "
        f"that the workers have. By CPU time the throughput is {result.cpu_ratio:.2f}. Memory: all processes, at most."
    )
    return Table(title, ("", "s", "xRT", "throughput", "CPU s", "CPU use", "memory"), rows, note=note)


def _row(name: str, result: CorpusResult, run_s: float, cpu_s: float, ratio: str, peak: str) -> tuple[str, ...]:
    share = f"{100 * cpu_s / (run_s * result.workers):.0f} %"
    return name, f"{run_s:.2f}", f"{result.audio_s / run_s:.0f}", ratio, f"{cpu_s:.2f}", share, peak
