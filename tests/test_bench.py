"""`dmcodec bench`: the figures are those of the runs, and the report is one page."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmcodec.benchmarks import BenchOptions, BenchResult, run_bench
from dmcodec.benchmarks.bench.memory import measure_memory
from dmcodec.benchmarks.bench.options import Shape
from dmcodec.benchmarks.bench.page import render_report
from dmcodec.benchmarks.bench.peers import open_peers
from dmcodec.benchmarks.bench.result_tables import result_tables
from dmcodec.benchmarks.codecs import registry
from dmcodec.benchmarks.codecs.torch import CompiledCodec, EagerCodec
from dmcodec.benchmarks.tables import significant
from dmcodec.benchmarks.timing import Speed, Timing, no_progress, paired_speedup
from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError, CheckpointError, MissingDependencyError
from dmcodec.export import Source, export_bundle
from dmcodec.nn import DMCodec
from dmcodec.runtime.backend import Captures

CONFIG = CodecConfig(n_filters=4, dimension=8, semantic_dimension=8, codebook_size=16, n_q=2)
OPTIONS = BenchOptions(durations_s=(0.2, 0.4), batches=(1, 2), rounds=3, threads=1, stream=True)


@pytest.fixture(scope="module")
def seeded_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "bundle"
    export_bundle(DMCodec.seeded(CONFIG, 7), path, source=Source(seed=7))
    return path


@pytest.fixture(scope="module")
def result(seeded_bundle: Path) -> BenchResult:
    return run_bench(seeded_bundle, dataclasses.replace(OPTIONS, against=("torch-eager", "onnxruntime-cuda")))


def test_percentiles_and_ratios_are_those_of_the_runs() -> None:
    timing = Timing.of([0.4, 0.1, 0.2, 0.3, 0.5])
    assert (timing.n, timing.p50_s) == (5, 0.3)
    assert timing.p95_s == pytest.approx(0.48)
    assert timing.p99_s == pytest.approx(0.496)
    assert timing.runs_s == (0.4, 0.1, 0.2, 0.3, 0.5)
    speed = Speed.of(compute_s=0.5, audio_s=10.0)
    assert (speed.rtf, speed.xrt) == (0.05, 20.0)
    assert paired_speedup([1.0, 2.0, 4.0], [2.0, 3.0, 20.0]) == 2.0  # of 2, 1.5 and 5
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_speedup([1.0], [1.0, 2.0])


def test_significant_digits() -> None:
    assert [significant(value) for value in (0.012345, 1.2345, 12.345, 1234.5)] == ["0.0123", "1.23", "12.3", "1,234"]


def test_the_result_holds_every_codec_operation_and_shape(result: BenchResult) -> None:
    shapes = {Shape(0.2, 1), Shape(0.4, 1), Shape(0.4, 2)}
    expected = {(side, op, shape) for side in ("onnxruntime-cpu", "torch-eager") for op in ("encode", "decode")
                for shape in shapes}  # fmt: skip
    assert {(m.side, m.operation, Shape(m.duration_s, m.batch)) for m in result.measurements} == expected
    for measurement in result.measurements:
        assert measurement.timing.n == 3
        audio_s = measurement.duration_s * measurement.batch
        assert measurement.speed.rtf == pytest.approx(measurement.timing.p50_s / audio_s)
        assert measurement.speed.xrt == pytest.approx(1 / measurement.speed.rtf)
    assert [graph.graph for graph in result.graphs] == ["encoder", "quantizer", "dequantizer", "decoder"]
    assert {Shape(c.duration_s, c.batch) for c in result.comparisons} == shapes
    for comparison in result.comparisons:
        shape = (comparison.duration_s, comparison.batch)
        encodes = {m.side: m for m in result.measurements if (m.operation, m.duration_s, m.batch) == ("encode", *shape)}
        own, peer = encodes["onnxruntime-cpu"], encodes[comparison.peer]
        ratios = np.array(peer.timing.runs_s) / np.array(own.timing.runs_s)
        assert comparison.encode_speedup == pytest.approx(np.median(ratios))
        assert comparison.code_agreement is not None
        assert comparison.waveform_snr_db is not None
        assert comparison.code_agreement >= 0.999
        assert comparison.waveform_snr_db >= 90


def test_the_stream_is_measured_push_by_push(result: BenchResult) -> None:
    assert result.stream is not None
    assert result.stream.push.n == 3 * 4  # 0.4 s in pushes of 5 frames, three times
    assert (result.stream.chunk_s, result.stream.look_ahead_s, result.stream.tokens_needed_s) == (0.1, 0.08, 0.1)
    assert result.stream.first_audio_compute_s > 0


def test_memory_is_measured_in_new_processes(result: BenchResult) -> None:
    peaks = {(entry.side, entry.operation): entry.peak_rss_bytes for entry in result.memory}
    assert set(peaks) == {(s, o) for s in ("onnxruntime-cpu", "torch-eager") for o in ("encode", "decode")}
    for operation in ("encode", "decode"):
        runtime, torch = peaks["onnxruntime-cpu", operation], peaks["torch-eager", operation]
        assert runtime is not None
        assert torch is not None
        assert 20e6 < runtime < torch  # importing torch alone takes more


def test_a_memory_process_that_is_killed_says_so(seeded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where memory runs out: a signal leaves no line of its own on stderr."""
    run = subprocess.run

    def killed(command: list[str], **options: Any) -> Any:
        assert command[1:3] == ["-P", "-c"]
        return run([*command[:3], f"import os, signal; os.kill(os.getpid(), signal.SIGKILL); {command[3]}"], **options)

    monkeypatch.setattr("dmcodec.benchmarks.bench.memory.subprocess.run", killed)
    options = BenchOptions(durations_s=(0.1,), batches=(1,), rounds=1, threads=1)
    [entry, _] = measure_memory(seeded_bundle, options, ["onnxruntime-cpu"], 1, no_progress)
    assert entry.reason == "the measuring process failed: exit status -9"


def test_captures_are_a_table(result: BenchResult) -> None:
    counted = dataclasses.replace(result, captures=Captures(4, 2, 1200, 1, ("no memory",)))
    [table] = [table for table in result_tables(counted) if table.title == "Fixed shapes in CUDA graphs"]
    assert (table.rows, table.note) == ((("4", "2", "1,200", "1"),), "no memory")
    assert "Fixed shapes in CUDA graphs" not in {table.title for table in result_tables(result)}


def test_the_report_is_one_page_with_the_plots_and_the_tables(result: BenchResult) -> None:
    page = render_report(result)
    assert page.count("<svg") == 4  # a panel for each operation of the first two; they stack on a phone
    for heading in ("RTF by clip length", "Throughput by batch", "Share of each graph", "Machine", "Streaming decode"):
        assert heading in page
    links = re.findall(r'(?:src|href)="(?!#)([^"]*)"', page)
    assert links == []
    assert "url(http" not in page
    for table in result_tables(result):
        assert table.rows
        assert table.title in page.replace("&#x27;", "'")


def test_the_command_prints_json_and_writes_the_report(seeded_bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "out.html"
    verb = [sys.executable, "-c", "from dmcodec.cli import main; main()", "bench", "--bundle", str(seeded_bundle)]
    command = [*verb, "--rounds", "1", "--duration", "0.2", "--batch", "1", "--threads", "1", "--report", str(report)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout)
    assert values["format_version"] == 1
    assert values["machine"]["versions"]["onnxruntime"]
    assert values["measurements"][0]["speed"]["rtf"] > 0
    assert values["stream"] is None
    assert report.read_text().startswith("<!DOCTYPE html>")
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "--force" in again.stderr
    done = subprocess.run([*command, "--force"], capture_output=True, text=True, check=True)
    for words in ("Steady state", "RTF", "xRT", "Peak memory", "encoder", "onnxruntime-cpu"):
        assert words in done.stdout


def test_other_weights_are_refused(seeded_bundle: Path, tiny_bundle: Path, tiny_model_files: tuple[Path, Path]) -> None:
    bundle = Bundle.open(seeded_bundle)
    checkpoint, config = tiny_model_files
    options = BenchOptions(against=("torch-eager",), checkpoint=checkpoint, config=config)
    with pytest.raises(CheckpointError, match="the bundle holds model"), open_peers(bundle, options, 1, print):
        pass


def test_a_peer_that_cannot_run_is_a_row_with_its_reason(seeded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dmcodec.benchmarks.codecs import torch as torch_peer

    def fail(self: Any, model: Any, device: str) -> None:
        raise RuntimeError("no C++ compiler\nand much more")

    monkeypatch.setattr(torch_peer.CompiledCodec, "__init__", fail)
    options = BenchOptions(
        durations_s=(0.1,), batches=(1,), rounds=1, threads=1, against=("torch-eager", "torch-compile")
    )
    result = run_bench(seeded_bundle, options)
    assert [failure.reason for failure in result.peer_failures] == ["RuntimeError: no C++ compiler"]
    rows = [row for table in result_tables(result) for row in table.rows if "not measured" in row]
    assert len(rows) == 1
    assert "no C++ compiler" in render_report(result)


def test_the_same_bundle_on_another_backend_is_a_peer(seeded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers that can't run here are rows with the backend's own reason; one that can is measured like torch."""
    monkeypatch.setitem(registry.BUNDLE_PEERS, "onnxruntime-cuda", ("onnxruntime", "cpu"))
    peers = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
    result = run_bench(
        seeded_bundle, BenchOptions(durations_s=(0.1,), batches=(1,), rounds=2, threads=1, against=peers)
    )
    reasons = {failure.peer: failure.reason for failure in result.peer_failures}
    assert "built for the CPU only" in reasons["onnxruntime-tensorrt"]
    assert set(reasons) == {"onnxruntime-tensorrt", "tensorrt"}
    assert [comparison.code_agreement for comparison in result.comparisons] == [1.0]
    for peer in reasons:
        assert any(f"{peer} could not be measured" in table.note for table in result_tables(result))
    assert [loading.compile_s for loading in result.peer_loading] == [None]


def test_torch_on_a_gpu_that_is_not_there(tiny_model: DMCodec) -> None:
    for kind in (EagerCodec, CompiledCodec):
        with pytest.raises(MissingDependencyError, match="sees no CUDA GPU"):
            kind(tiny_model, "cuda")


@pytest.mark.parametrize(
    "wrong",
    [
        {"durations_s": (0.0,)},
        {"durations_s": (float("nan"),)},
        {"durations_s": (1e9,)},
        {"durations_s": ()},
        {"batches": (0,)},
        {"batches": (1000,)},
        {"rounds": 0},
        {"threads": 0},
        {"chunk_frames": 0},
        {"against": ("tensorflow",)},
        {"checkpoint": Path("x.pt")},
        {"against": ("torch", "onnxruntime-cpu")},
        {"against": ("onnxruntime-cuda",), "provider": "cuda"},
        {"against": ("tensorrt",), "checkpoint": Path("x.pt")},
        {"against": ("torch",), "config": Path("x.json")},
    ],
)
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        BenchOptions(**wrong)
