"""`dmcodec bench` says what its ratios are worth: load, spread, fidelity, the worst ratio, what was left out."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmcodec.benchmarks import BenchOptions, BenchResult, load, run_bench
from dmcodec.benchmarks.bench import run as bench_run
from dmcodec.benchmarks.bench.budget import MIN_ROUNDS, Budget
from dmcodec.benchmarks.bench.headline import headline
from dmcodec.benchmarks.bench.measure import speech_batch
from dmcodec.benchmarks.bench.page import render_report
from dmcodec.benchmarks.bench.record_tables import parity_table
from dmcodec.benchmarks.bench.result import Comparison, Fidelity
from dmcodec.benchmarks.bench.result_tables import result_tables, summary_lines
from dmcodec.benchmarks.codecs import torch as torch_codecs
from dmcodec.benchmarks.codecs.torch import Bf16Codec, EagerCodec, Int8Codec
from dmcodec.benchmarks.load import Load, LoadWatch
from dmcodec.benchmarks.timing import Timing, paired_quartiles
from dmcodec.cli.common import seconds
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, MissingDependencyError
from dmcodec.export import Source, export_bundle
from dmcodec.nn import DMCodec

CONFIG = CodecConfig(n_filters=4, dimension=8, semantic_dimension=8, codebook_size=16, n_q=2)
OPTIONS = BenchOptions(
    durations_s=(0.2, 0.4), batches=(1,), rounds=3, threads=1, against=("torch-bf16", "torch-int8", "torch-eager")
)


@pytest.fixture(scope="module")
def seeded_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "bundle"
    export_bundle(DMCodec.seeded(CONFIG, 7), path, source=Source(seed=7))
    return path


@pytest.fixture(scope="module")
def result(seeded_bundle: Path) -> BenchResult:
    """Measured without the processes that measure memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_run, "measure_memory", lambda *_: ())
        return run_bench(seeded_bundle, OPTIONS)


IDLE = Load(cpus=2, threads=2, at_start=0.1, at_end=1.9, other_cpus=0.01, problems=())


def problems(*arguments: Any) -> tuple[str, ...]:
    return load._problems(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, 2, 0.4, 2.1, 0.05, False), ()),
        ((2, 2, None, None, None, False), ()),
        ((2, 2, 2.5, 2.0, 0.05, False), ("2.50 at the start",)),
        ((2, 1, 1.9, 2.0, 0.05, False), ()),  # one CPU is free
        ((2, 2, 0.1, 6.0, None, False), ("6.00 at the end",)),
        ((2, 2, 0.1, 4.5, None, True), ()),  # it compiled
        ((2, 8, 0.1, 2.9, None, False), ()),  # more threads than CPUs are no more load than CPUs
        ((64, 8, 60.0, 64.0, None, False), ("60.00 at the start",)),
    ],
)
def test_load_beyond_the_free_cpus_is_no_measurement(arguments: tuple[Any, ...], words: tuple[str, ...]) -> None:
    found = problems(*arguments)
    assert len(found) == len(words)
    assert all(word in problem for word, problem in zip(words, found, strict=True))


def test_cpus_that_others_took_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the load average has not risen yet; CPUs of the machine beyond those of the container are spare."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    [found] = problems(2, 2, 0.1, 0.2, 0.9, False)
    assert "took 0.90 CPUs" in found
    assert problems(2, 1, 0.1, 0.2, 0.9, False) == ()
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert problems(2, 2, 0.1, 0.2, 40.0, False) == ()


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the system does not tell the CPU time of all processes")
def test_the_time_of_other_processes_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 1\n")
    monkeypatch.setattr(load, "_PROC_STAT", stat)
    own, now = [0.0, 4.0], [0.0]
    monkeypatch.setattr(load, "_own_s", lambda: own.pop(0))
    monkeypatch.setattr("dmcodec.benchmarks.load.time.perf_counter", lambda: now[0])
    watch = LoadWatch(1)
    now[0] = 10.0
    stat.write_text(f"cpu  {8 * ticks} {ticks} {2 * ticks} 999 999 {ticks} {2 * ticks} 0 0 0\n")
    assert watch.stop().other_cpus == pytest.approx((14 - 4) / 10)


def test_a_busy_machine_is_marked_everywhere(result: BenchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0), raising=False)
    busy = dataclasses.replace(result, load=LoadWatch(2).stop())
    busy = dataclasses.replace(busy, headline=headline(busy))
    assert not busy.is_measurement
    assert busy.to_dict()["is_measurement"] is False
    assert busy.headline.startswith("NOT A MEASUREMENT: the load average was 9.00 at the start")
    titles = [table.title for table in result_tables(busy)]
    assert [title for title in titles if title.endswith("(not a measurement)")] == [
        title for title in titles if title.startswith(("Speedup", "Steady", "Graphs"))
    ]
    page = render_report(busy)
    assert '<p class="warning">NOT A MEASUREMENT' in page
    assert "RTF by clip length (not a measurement)" in page
    quiet = dataclasses.replace(result, load=IDLE)
    assert quiet.to_dict()["is_measurement"] is True
    assert "measurement)" not in render_report(quiet)
    assert "load average 0.10 at the start, 1.90 at the end" in "\n".join(summary_lines(quiet))


def test_quartiles() -> None:
    timing = Timing.of([0.5, 0.1, 0.2, 0.3, 0.4])
    assert (timing.p25_s, timing.p50_s, timing.p75_s) == pytest.approx((0.2, 0.3, 0.4))
    assert paired_quartiles([1.0] * 5, [1.0, 2.0, 3.0, 4.0, 9.0]) == (2.0, 3.0, 4.0)


def test_fidelity_is_against_float32(result: BenchResult) -> None:
    found = {entry.side: entry for entry in result.fidelity}
    assert list(found) == ["onnxruntime-cpu", "torch-bf16", "torch-int8"]  # torch-eager is the reference
    assert {entry.reference for entry in result.fidelity} == {"torch-eager"}
    own, bf16, int8 = found.values()
    assert own.code_agreement == own.level0_agreement == 1.0
    assert own.waveform_snr_db > 90
    assert bf16.latents_snr_db is not None
    assert 20 < bf16.latents_snr_db < 60
    assert 20 < bf16.waveform_snr_db < 60
    assert 20 < int8.waveform_snr_db < 90
    model = DMCodec.seeded(CONFIG, 7)
    waveforms = speech_batch(OPTIONS.reference, 16000)
    exact, rough = (codec.latents(waveforms).astype(float) for codec in (EagerCodec(model), Bf16Codec(model)))
    expected = 10 * np.log10(np.sum(exact**2) / np.sum((exact - rough) ** 2))
    assert bf16.latents_snr_db == pytest.approx(expected, abs=0.2)
    codes = EagerCodec(model).encode(waveforms)
    assert bf16.code_agreement == pytest.approx(np.mean(codes == Bf16Codec(model).encode(waveforms)))


def test_torch_that_can_not_quantize_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DMCodec.seeded(CONFIG, 7)
    with pytest.raises(MissingDependencyError, match="CPU only"):
        Int8Codec(model, "cuda")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch.ao.quantization", None)
        with pytest.raises(MissingDependencyError, match=r"no torch\.ao\.quantization"):
            Int8Codec(model)
    assert next(model.encoder.parameters()).dtype.is_floating_point
    assert torch_codecs.TORCH_INT8 == "torch-int8"


def comparison(peer: str, encode: float, decode: float, duration_s: float = 10.0) -> Comparison:
    return Comparison(peer, duration_s, 1, encode, decode, 0.9, 50.0, (encode, encode), (decode, decode))


def test_the_headline_is_the_worst_ratio_with_what_it_costs(result: BenchResult) -> None:
    quiet = dataclasses.replace(result, load=IDLE)
    rough = Fidelity("torch-bf16", "torch-eager", 10.0, 41.4, 0.876, 0.993, 52.2)
    own = Fidelity("onnxruntime-cpu", "torch-eager", 10.0, 126.0, 1.0, 1.0, 133.0)
    slower = dataclasses.replace(
        quiet,
        comparisons=(comparison("torch-eager", 1.7, 1.8), comparison("torch-bf16", 0.9, 0.7, 1.0)),
        fidelity=(own, rough),
    )
    assert headline(slower) == (
        "onnxruntime-cpu (fp32) is slower than torch-bf16: 0.70 times as fast at decode of 1 s, the worst ratio of all."
        " torch-bf16 against float32: 87.6% of the codes equal (99.3% of level 0), audio 52 dB, latents 41 dB. "
        "onnxruntime-cpu against float32: 100.0% of the codes equal (100.0% of level 0), audio 133 dB, latents 126 dB."
    )
    faster = dataclasses.replace(slower, comparisons=(comparison("torch-eager", 1.7, 1.8),))
    assert headline(faster).startswith(
        "onnxruntime-cpu (fp32) is at least 1.70 times as fast as each peer; "
        "the closest is torch-eager, at encode of 10 s."
    )
    assert "torch-eager against" not in headline(faster)
    alone = headline(dataclasses.replace(quiet, comparisons=(), fidelity=()))
    assert alone.startswith("onnxruntime-cpu (fp32) encodes at ")
    assert alone.endswith("clips of 0.4 s.")


def test_rounds_of_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("dmcodec.benchmarks.bench.budget.time.perf_counter", lambda: now[0])
    limited = Budget(60, rounds=10)
    assert limited.rounds(2.0, share=0.5) == 10  # 15 would fit
    assert limited.rounds(5.0, share=0.5) == 6
    now[0] += 50
    assert (limited.rounds(5.0, share=0.5), MIN_ROUNDS) == (3, 3)
    assert limited.allows("a", 10.0)
    assert not limited.allows("16 x 10 s", 10.1)
    assert limited.left_out == ("16 x 10 s (about 11 s, 10 s were left)",)
    assert Budget(60, rounds=2).rounds(0.1, 1.0) == 2
    unlimited = Budget(None, rounds=7)
    assert (unlimited.rounds(1e9, 0.1), unlimited.allows("a", 1e9), unlimited.left_out) == (7, True, ())


def test_what_does_not_fit_into_a_budget_is_left_out(seeded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_run, "Budget", lambda seconds, rounds: Budget(seconds and 1e-9, rounds))
    options = dataclasses.replace(OPTIONS, durations_s=(0.1, 0.2), against=("torch",), rounds=9, budget_s=5.0)
    result = run_bench(seeded_bundle, options)
    assert {entry.duration_s for entry in result.measurements} == {0.2}  # the reference
    assert {entry.side for entry in result.measurements} == {
        "onnxruntime-cpu",
        "torch-eager",
        "torch-bf16",
        "torch-int8",
    }
    assert {entry.timing.n for entry in result.measurements} == {MIN_ROUNDS}
    assert result.memory == ()
    shape, compiled, memory = result.left_out
    assert shape.startswith("0.1 s (about 1 s")
    assert compiled.startswith("torch-compile (compiling takes long; --against torch-compile")
    assert memory.startswith("memory of onnxruntime-cpu, torch-eager")
    text = "\n".join(summary_lines(result))
    assert "a quick look, within 5 s" in text
    assert memory in text
    assert result.to_dict()["left_out"] == result.left_out


def test_compiling_is_left_out_of_a_budget_unless_it_is_named() -> None:
    every = ("torch-eager", "torch-bf16", "torch-int8", "torch-compile")
    assert BenchOptions(against=("torch",)).peers == every
    assert BenchOptions(against=("torch",), budget_s=60).peers == every[:3]
    assert BenchOptions(against=("torch", "torch-compile"), budget_s=60).peers == every
    assert BenchOptions(against=("torch",), provider="cuda").peers == ("torch-eager", "torch-bf16", "torch-compile")


@pytest.mark.parametrize("wrong", [{"budget_s": 1.0}, {"budget_s": float("nan")}, {"budget_s": 60.0, "streams": (1,)}])
def test_wrong_budgets(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="budget"):
        BenchOptions(**wrong)


def test_times_as_people_write_them() -> None:
    assert [seconds("--budget", text) for text in ("60", "60s", "1.5m", "2 h")] == [60, 60, 90, 7200]
    for text in ("", "s", "-1s", "1e3", "1d", "inf", "60 seconds"):
        with pytest.raises(ArgumentError, match=r"--budget .* is not a time; give seconds or minutes"):
            seconds("--budget", text)


def test_parity_is_pass_or_fail_beside_its_threshold() -> None:
    table = parity_table(
        {
            "latents_snr_db": 39.0, "decoder_snr_db": 120.0, "stream_snr_db": 89.0, "chain_snr_db": 3.0, "ties": 2,
            "max_abs_error": 1e-5, "thresholds": {"latents_snr_db": 40.0, "decoder_snr_db": 90.0, "chain_snr_db": 90.0},
        }
    )  # fmt: skip
    assert {row[0]: row[1:] for row in table.rows} == {
        "latents_snr_db": ("39", "at least 40", "FAIL"),
        "decoder_snr_db": ("120", "at least 90", "pass"),
        "stream_snr_db": ("89", "at least 90", "FAIL"),  # that of the decoder
        "chain_snr_db": ("3", "-", ""),  # after a tie the audio differs
        "ties": ("2", "-", ""),
        "max_abs_error": ("1e-05", "-", ""),
    }


def test_values_that_differ_by_tens_have_a_logarithmic_axis(result: BenchResult) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from dmcodec.benchmarks.bench.plots import _scale

    for values, scale in (([1.0, 9.0], "linear"), ([1.0, 30.0], "log"), ([0.002, 0.004, 0.05], "log")):
        axes = Figure().subplots()
        axes.plot(values)
        _scale(axes, values)
        assert axes.get_yscale() == scale
        low, high = axes.get_ylim()
        assert low < min(values) < max(values) < high


def test_start_up_is_measured_in_new_processes(seeded_bundle: Path) -> None:
    verb = [sys.executable, "-c", "from dmcodec.cli import main; main()", "bench", "--start-up"]
    command = [*verb, "--bundle", str(seeded_bundle), "--rounds", "1", "--threads", "1"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    values = json.loads(done.stdout)
    steps = {step["name"]: step for step in values["steps"]}
    assert list(steps) == ["python", "import", "load", "first encode", "first decode", "encode", "decode"]
    first = sum(steps[name]["cpu_s"] for name in ("python", "import", "load", "first encode"))
    assert values["first_call_cpu_s"] == pytest.approx(first)
    assert values["first_calls_cpu_s"] == pytest.approx(first + steps["first decode"]["cpu_s"])
    assert steps["import"]["cpu_s"] > steps["encode"]["cpu_s"] > 0
    assert values["checked_before"] is False
    assert values["is_measurement"] is (values["load"]["problems"] == [])
    wrong = subprocess.run([*command, "--budget", "60s"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "--start-up measures one thing" in wrong.stderr


HEAVY = {"asyncio", "importlib.metadata", "ssl", "email", "typer", "rich", "torch"}


def test_a_first_call_imports_nothing_that_it_does_not_need() -> None:
    program = (
        "import numpy as np, sys; from dmcodec.runtime import Codec; codec = Codec.load(threads=1); "
        "codec.decode(codec.encode(np.zeros(16000), 16000)); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_idle_threads_of_blas_sleep_unless_the_user_says_otherwise() -> None:
    program = "import {}dmcodec, os; print(os.environ.get('OPENBLAS_THREAD_TIMEOUT'))"
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}

    def printed(first: str, **more: str) -> str:
        command = [sys.executable, "-P", "-c", program.format(first)]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment | more
        ).stdout.strip()

    assert printed("") == "4"
    assert printed("", OPENBLAS_THREAD_TIMEOUT="20") == "20"
    assert printed("numpy, ") == "None"  # too late
