"""`dmcodec doctor`: reports what is installed, survives crashes, and compares the results of a GPU with the goals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from platforms import posix

from dmcodec.benchmarks.codecs.registry import BUNDLE_PEERS
from dmcodec.benchmarks.doctor import findings as findings_module
from dmcodec.benchmarks.doctor import run as report_module
from dmcodec.benchmarks.doctor.findings import examine
from dmcodec.benchmarks.doctor.options import GpuReportOptions
from dmcodec.benchmarks.doctor.probe import DMCODEC, PROBES, Outcome, run_json
from dmcodec.benchmarks.doctor.result import GOALS, Examination, check_goals
from dmcodec.benchmarks.doctor.result_tables import report_tables
from dmcodec.benchmarks.doctor.run import failures, run_gpu_report
from dmcodec.cli import weights
from dmcodec.cli.weights import Weights, full_size_bundle
from dmcodec.errors import ArgumentError

NOTHING = Outcome(False, None, "ModuleNotFoundError: none")


def python(code: str) -> Outcome:
    return run_json([sys.executable, "-c", code], 30)


@posix
def test_a_process_that_fails_is_a_value() -> None:
    assert python("print('{\"a\": 1}')").value == {"a": 1}
    crashed = python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (crashed.ok, crashed.reason) == (False, "crashed with SIGSEGV")
    assert python("import sys; print('note: x', file=sys.stderr); sys.exit('error: it broke')").reason == "it broke"
    failed = python("import sys; print('[1]'); sys.exit(3)")
    assert (failed.ok, failed.value, failed.reason) == (False, [1], "exit status 3")
    assert "printed no JSON" in str(python("print('hello')").reason)
    assert "longer than 0.2 s" in str(run_json([sys.executable, "-c", "import time; time.sleep(9)"], 0.2).reason)
    assert "could not be started" in str(run_json(["/no/such/program"], 1).reason)


def test_the_command_without_a_gpu() -> None:
    done = subprocess.run([*DMCODEC, "doctor", "--json"], capture_output=True, text=True, check=True)
    found = {entry["name"]: entry for entry in json.loads(done.stdout)["findings"]}
    assert found["onnxruntime"]["status"] == "ok"
    assert "CPU" in found["onnxruntime"]["found"]
    for name in ("python", "dmcodec", "CPU", "torch", "NVIDIA driver", "GPU", "tensorrt", "tensorrt-rtx", "cache"):
        assert found[name]["status"] in ("ok", "missing", "problem")
        assert found[name]["status"] == "ok" or found[name]["way_out"]
    done = subprocess.run([*DMCODEC, "doctor", "--rounds", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "add --gpu" in done.stderr


def outcomes(**changes: Outcome) -> dict[str, Outcome]:
    return {**dict.fromkeys(PROBES, NOTHING), **{n.replace("_", "-"): o for n, o in changes.items()}}


def examined(monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...] = (), **changes: Outcome) -> Examination:
    values = outcomes(**changes)
    monkeypatch.setattr(findings_module, "_probe", values.__getitem__)
    monkeypatch.setattr(findings_module, "installed_version", lambda name: "1.0" if name in installed else None)
    return examine()


def test_findings_name_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**arguments: Any) -> dict[str, tuple[str, str]]:
        return {entry.name: (entry.status, entry.found) for entry in examined(monkeypatch, **arguments).findings}

    bare = found()
    assert bare["onnxruntime"][0] == bare["torch"][0] == bare["GPU"][0] == "missing"
    both = found(installed=("onnxruntime", "onnxruntime-gpu"))
    assert both["onnxruntime"][0] == "problem"
    assert "overwrite" in both["onnxruntime"][1]
    broken = found(installed=("tensorrt", "torch"), tensorrt=Outcome(False, None, "crashed with SIGSEGV"))
    assert broken["tensorrt"] == ("problem", "crashed with SIGSEGV")
    assert broken["torch"][0] == "problem"
    assert "can't build engines" in found(installed=("tensorrt-lean-cu13",))["tensorrt"][1]
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    gpu = examined(
        monkeypatch,
        installed=("onnxruntime-gpu",),
        onnxruntime=Outcome(True, {"version": "1.31", "providers": providers}),
        torch=Outcome(True, {"version": "2.11", "cuda": "13.0", "cuda_available": True, "gpu": "GPU One"}),
        driver=Outcome(True, {"cuda": "13.0", "gpus": 1}),
        tensorrt=Outcome(True, {"version": "11.4"}),
    )
    assert (gpu.has_gpu, gpu.has_torch) == (True, True)
    named = {entry.name: entry for entry in gpu.findings}
    assert {named[name].status for name in ("onnxruntime CUDA", "torch", "NVIDIA driver", "GPU", "tensorrt")} == {"ok"}
    assert "GPU One" in named["torch"].found


def test_the_report_of_the_cpu(tiny_bundle: Path, tmp_path: Path) -> None:
    """Everything but a GPU: the named backends run, or give the reason why they can't."""
    out = tmp_path / "report.json"
    command = [
        *DMCODEC,
        "doctor",
        "--bundle",
        str(tiny_bundle),
        "--gpu",
        "--out",
        str(out),
        "--rounds",
        "1",
        "--duration",
        "0.2",
    ]
    command += ["--batch", "2", "--backend", "onnxruntime-cpu", "--backend", "onnxruntime-cuda"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: nothing ran on a GPU" in done.stderr
    assert "built for the CPU only" in done.stderr
    report = json.loads(out.read_text())
    assert report["machine"]["versions"]["onnxruntime"]
    cpu, cuda = report["runs"]
    assert cpu["verify"]["value"]["passed"] is True
    assert cpu["bench"]["value"]["measurements"][0]["speed"]["xrt"] > 0
    assert "built for the CPU only" in cuda["verify"]["reason"]
    assert "bench" not in cuda
    assert {goal["met"] for goal in report["goals"]} == {None}
    assert "passed" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "--force" in again.stderr


def run_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path, answer: Any, **options: Any
) -> tuple[dict[str, Any], list[list[str]]]:
    """A report whose steps are answered by `answer(arguments)`, on a machine with a GPU and torch."""
    asked: list[list[str]] = []

    def run(command: list[str], timeout_s: float) -> Outcome:
        asked.append(command[len(DMCODEC) :])
        found: Outcome = answer(asked[-1])
        return found

    monkeypatch.setattr(report_module, "run_json", run)
    examination = Examination((), has_gpu=options.pop("has_gpu", True), has_torch=True)
    found = run_gpu_report(examination, GpuReportOptions(bundles=(bundle,), **options), tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(found))
    return found, asked


def bench(side: str, encode: float, peer: float, precision: str = "fp16") -> dict[str, Any]:
    def measured(operation: str, batch: int, xrt: float) -> dict[str, Any]:
        speed, timing = {"rtf": 1 / xrt, "xrt": xrt}, {"p50_s": 1 / xrt}
        return {"side": side, "operation": operation, "duration_s": 10.0, "batch": batch, "speed": speed,
                "timing": timing}  # fmt: skip

    compared = [
        {"peer": name, "duration_s": seconds, "batch": 1, "encode_speedup": ratio, "decode_speedup": 9.0,
         "code_agreement": 0.99, "waveform_snr_db": 60.0}
        for name, ratio, seconds in (
            ("torch-eager-cuda", peer, 10.0), ("torch-compile-cuda-fp16", 3.0, 10.0), ("torch-eager-cuda", 99.0, 1.0)
        )
    ]  # fmt: skip
    measurements = [measured(name, batch, encode * batch) for name in ("encode", "decode") for batch in (1, 8, 4)]
    return {"side": side, "bundle": {"precision": precision}, "comparisons": compared, "measurements": measurements,
            "reference_s": 10.0}  # fmt: skip


VERIFIED = {"passed": True, "problems": [], "cases": [{"latents_snr_db": 50.0, "decoder_snr_db": 60.0}]}


def test_goals_are_compared_with_results() -> None:
    rows = check_goals([bench("tensorrt", 700, 5.5), bench("tensorrt", 1, 1, "fp32"), bench("onnxruntime-cpu", 1, 1)])
    assert [(row["side"], row["encode"], row["decode"], row["met"]) for row in rows] == [
        ("tensorrt", 5.5, 9.0, True),
        ("tensorrt", 3.0, 9.0, True),
        ("tensorrt", 5600, 5600, True),
        (None, None, None, None),  # no live streams were measured
    ]
    assert [row["met"] for row in check_goals([bench("tensorrt", 600, 4.9)])] == [False, True, False, None]
    for p99_s, met in ((0.019, True), (0.021, False)):
        level = {"operation": "decode", "side": "pooled", "streams": 100, "p99_s": p99_s}
        separate = {**level, "side": "separate", "p99_s": 9.0}
        row = check_goals([{**bench("tensorrt", 1, 1), "live": {"levels": [separate, level]}}])[-1]
        assert (row["encode"], row["decode"], row["met"]) == (None, 1000 * p99_s, met)
    assert [row["met"] for row in check_goals([])] == [None] * len(GOALS)


def test_a_gpu_machine(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All backends run; TensorRT builds its engines first; a crash of one backend leaves the others."""

    def answer(arguments: list[str]) -> Outcome:
        if arguments[0] == "export":
            return Outcome(True, {}, None, 12.0)
        if "tensorrt" in arguments and "onnxruntime" in arguments:
            return Outcome(False, None, "crashed with SIGSEGV")
        side = arguments[arguments.index("--backend") + 1]
        return Outcome(True, bench(side, 700, 5.5) if arguments[0] == "bench" else VERIFIED)

    report, asked = run_with(monkeypatch, tmp_path, tiny_bundle, answer)
    runs = {run["side"]: run for run in report["runs"]}
    assert set(runs) == set(BUNDLE_PEERS)
    assert runs["onnxruntime-tensorrt"]["verify"]["reason"] == "crashed with SIGSEGV"
    assert "bench" not in runs["onnxruntime-tensorrt"]
    assert runs["tensorrt"]["build"]["took_s"] == 12.0
    against = {("--against" in arguments, "cpu" in arguments) for arguments in asked if arguments[0] == "bench"}
    assert against == {(True, False), (False, True)}  # torch is compared with on the GPU
    builds = {" ".join(arguments[5:]) for arguments in asked if arguments[0] == "export"}
    assert builds == {
        "--json", "--flavour onnxruntime --json",
        "--graphs quantizer,dequantizer,encoder_downsampler,encoder_output,decoder_upsampler --json",
    }  # fmt: skip
    live = {"--streams=100" in arguments for arguments in asked if arguments[0] == "bench" and "cpu" not in arguments}
    assert live == {True}
    assert [goal["met"] for goal in report["goals"] if goal["side"] == "tensorrt"] == [True] * 3
    assert failures(report) == []
    cells = {cell for table in report_tables(report) for row in table.rows for cell in row}
    assert {"12.0", "not run: crashed with SIGSEGV", "yes", "passed"} <= cells


def test_what_is_wrong_is_a_failure(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**VERIFIED, "passed": False, "problems": ["latents_snr_db is 5"]}

    def answer(arguments: list[str]) -> Outcome:
        if arguments[0] == "bench":
            return Outcome(False, None, "out of memory")
        return Outcome(False, wrong, "latents_snr_db is 5")

    report, _ = run_with(monkeypatch, tmp_path, tiny_bundle, answer, backends=("onnxruntime-cuda",))
    [run] = report["runs"]
    assert run["bench"]["reason"] == "out of memory"
    assert failures(report) == ["fp32 on onnxruntime-cuda: latents_snr_db is 5"]
    assert any("FAILED" in cell for table in report_tables(report) for row in table.rows for cell in row)


def test_without_a_gpu_nothing_is_tried(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, asked = run_with(monkeypatch, tmp_path, tiny_bundle, lambda arguments: NOTHING, has_gpu=False)
    assert asked == []
    assert {run["skipped"] for run in report["runs"]} == {"no GPU that the driver sees"}
    assert failures(report) == ["nothing ran on a GPU: no GPU that the driver sees"]


@pytest.mark.parametrize("wrong", [{"backends": ("abacus",)}, {"timeout_s": 0.0}, {"timeout_s": float("nan")}])
def test_wrong_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        GpuReportOptions(bundles=(), **wrong)


def test_the_full_size_bundles_of_both_precisions_lie_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Path, str | None]] = []

    def write(weights: Weights, path: Path, force: bool) -> None:
        assert (weights.checkpoint, weights.config, weights.seed) == (None, None, 0)
        made.append((path, weights.precision))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("dmcodec.cli.weights.write_bundle", write)
    paths = [full_size_bundle(precision) for precision in ("fp32", "fp16")]
    assert made == list(zip(paths, ("fp32", "fp16"), strict=True))
    assert len(set(paths)) == 2


def test_a_full_size_bundle_of_other_code_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_args, **_options: tmp_path)
    monkeypatch.setattr(weights, "_usable", lambda path: True)
    before = full_size_bundle()
    assert full_size_bundle() == before
    monkeypatch.setattr(weights, "_exporter_digest", lambda: "0" * 8)
    assert full_size_bundle() != before
