"""`dmcodec doctor` and packages for a GPU, the choice of what runs the LSTM, and figures in a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dmcodec.benchmarks.codecs.registry import BUNDLE_PEERS
from dmcodec.benchmarks.doctor.figures import BEGIN, END, NOT_MEASURED, figures_markdown, publish
from dmcodec.benchmarks.doctor.gpu_packages import package_findings, plugin_finding, tensorrt_extra, tensorrt_words
from dmcodec.benchmarks.doctor.options import GpuReportOptions
from dmcodec.benchmarks.doctor.probe import Outcome
from dmcodec.benchmarks.doctor.result import Examination, Finding, check_choices
from dmcodec.benchmarks.doctor.result_tables import report_tables
from dmcodec.benchmarks.doctor.run import run_gpu_report
from dmcodec.errors import ArgumentError, MissingDependencyError
from dmcodec.extras import refuse_together

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/get-started/engine-on-your-gpu.md"


def findings(driver: str | None, installed: dict[str, str], onnxruntime: dict[str, Any] | None = None) -> list[Finding]:
    outcomes = {
        "driver": Outcome(False) if driver is None else Outcome(True, {"cuda": driver, "gpus": 1}),
        "onnxruntime": Outcome(True, onnxruntime or {}),
    }
    return list(package_findings(outcomes, installed.get))


NONE: dict[str, str] = {}
FULL_13 = {"tensorrt-cu13": "11.4.0", "cuda-bindings": "13.5.0"}
FULL_12 = {"tensorrt-cu12": "11.4.0", "cuda-bindings": "12.9.4"}


@pytest.mark.parametrize(
    ("driver", "installed", "onnxruntime", "problem", "way_out"),
    [
        ("12.8", FULL_13, {}, "tensorrt-cu13 is for CUDA 13, and the driver runs CUDA up to 12.8", "dmcodec[trt-cu12]"),
        ("12.8", {"onnxruntime-gpu": "1.31"}, {"cuda": "13.0"}, "onnxruntime-gpu is for CUDA 13", "<1.27"),
        ("13.0", {**FULL_13, **FULL_12}, {}, "tensorrt-cu13 and tensorrt-cu12 overwrite", "pip uninstall"),
        ("13.0", {**FULL_13, "cuda-bindings": "12.9"}, {}, "cuda-bindings 12.9 are for CUDA 12", "dmcodec[trt]"),
        ("13.0", {**FULL_12, "cuda-bindings": "13.5"}, {}, "cuda-bindings 13.5 are for CUDA 13", "dmcodec[trt-cu12]"),
        ("13.0", FULL_13, {"tensorrt_conflict": ["built for TensorRT 10", "`pip install 10`"]}, "TensorRT 10", "10"),
    ],
)
def test_packages_that_do_not_fit_have_a_way_out(
    driver: str, installed: dict[str, str], onnxruntime: dict[str, Any], problem: str, way_out: str
) -> None:
    found = [each for each in findings(driver, installed, onnxruntime) if problem in each.found]
    assert [each.status for each in found] == ["problem"]
    assert way_out in found[0].way_out


def test_packages_that_fit_are_told_apart() -> None:
    [cu12] = findings("12.8", FULL_12)
    [cu13] = findings("13.0", {**FULL_13, "onnxruntime-gpu": "1.31"}, {"cuda": "13.0", "tensorrt_conflict": None})
    [older] = findings("13.0", FULL_12)  # a driver runs what is older than it
    assert {each.status for each in (cu12, cu13, older)} == {"ok"}
    assert "tensorrt-cu12 for CUDA 12" in cu12.found
    assert "onnxruntime-gpu for CUDA 13" in cu13.found
    assert findings(None, {}) == []
    assert tensorrt_words(FULL_12.get) == "tensorrt-cu12 for CUDA 12"
    assert tensorrt_words({"tensorrt": "11"}.get) == "tensorrt"
    assert ["[trt-cu12]" in tensorrt_extra(driver) for driver in ("12.4", "13.0", None)] == [True, False, False]


def test_the_plugin_is_a_line() -> None:
    ready = Outcome(True, {"version": "0.5.0", "device": "NVIDIA NvTensorRTRTXExecutionProvider"})
    assert plugin_finding(ready, NONE.get).status == "ok"
    broken = Outcome(False, None, "GpuError: no NVIDIA driver")
    assert plugin_finding(broken, NONE.get).status == "missing"
    found = plugin_finding(broken, {"onnxruntime-ep-nv-tensorrt-rtx": "0.5.0"}.get)
    assert (found.status, found.found) == ("problem", "GpuError: no NVIDIA driver")
    assert "rtx-plugin" in found.way_out


def test_two_tensorrts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmcodec.extras._is_distribution", lambda name: name.startswith("tensorrt-cu"))
    with pytest.raises(MissingDependencyError, match=r"overwrite each other's files.*pip uninstall tensorrt-cu13 "):
        refuse_together(("tensorrt-cu13", "tensorrt-cu12"), ("trt", "trt-cu12"))
    refuse_together(("tensorrt-cu13", "other"), ("trt",))


def bench(side: str, precision: str, encode_s: float, decode_s: float) -> dict[str, Any]:
    measurements = [
        {"side": side, "operation": operation, "duration_s": 10.0, "batch": batch, "timing": {"p50_s": seconds * batch},
         "speed": {"rtf": seconds / 10, "xrt": 10 / seconds}}
        for operation, seconds in (("encode", encode_s), ("decode", decode_s)) for batch in (1, 16)
    ]  # fmt: skip
    levels = [{"operation": "decode", "side": "pooled", "streams": 100, "p99_s": 0.0123}]
    return {
        "side": side, "bundle": {"precision": precision}, "measurements": measurements, "comparisons": [],
        "reference_s": 10.0, "live": {"levels": levels},
        "captures": {"captured": 4, "by_library": 2, "launches": 90, "failed": 1, "reasons": []},
    }  # fmt: skip


def test_the_faster_of_tensorrt_and_the_hybrid_is_named() -> None:
    engines, hybrid = bench("tensorrt", "fp32", 0.02, 0.01), bench("tensorrt-hybrid", "fp32", 0.01, 0.0125)
    [choice] = check_choices([engines, hybrid, bench("tensorrt", "fp16", 0.02, 0.01)])
    assert choice == pytest.approx({"precision": "fp32", "encode": 2.0, "decode": 0.8, "take": "tensorrt-hybrid"})
    assert check_choices([engines, bench("tensorrt-hybrid", "fp32", 0.03, 0.03)])[0]["take"] == "tensorrt"
    assert check_choices([engines]) == []


def report_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path, works: bool, **options: Any
) -> dict[str, Any]:
    def run(command: list[str], timeout_s: float) -> Outcome:
        verb, *arguments = command[3:]
        if not works:
            return Outcome(False, None, "no GPU")
        if verb == "verify":
            case = {"latents_snr_db": 50.0, "decoder_snr_db": 60.0}
            return Outcome(True, {"passed": True, "problems": [], "cases": [case]})
        backend = arguments[arguments.index("--backend") + 1] if "--backend" in arguments else ""
        provider = f"-{arguments[arguments.index('--provider') + 1]}" if "--provider" in arguments else ""
        return Outcome(True, bench(backend + provider, "fp32", 0.02, 0.01))

    monkeypatch.setattr("dmcodec.benchmarks.doctor.run.run_json", run)
    asked = GpuReportOptions(bundles=(bundle,), **options)
    return run_gpu_report(Examination((), has_gpu=True, has_torch=True), asked, tmp_path / "report.json")


def test_figures_are_written_into_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_bundle: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{figures_markdown(None)}\n\nThe end.\n")
    assert page.read_text().count(NOT_MEASURED) == 1
    report_on_a_gpu(monkeypatch, tmp_path, tiny_bundle, works=False, publish=page)
    assert NOT_MEASURED in page.read_text()  # nothing ran
    report = report_on_a_gpu(monkeypatch, tmp_path, tiny_bundle, works=True, publish=page)
    text = page.read_text()
    assert text.startswith("# Title\n\n")
    assert text.endswith("\n\nThe end.\n")
    assert NOT_MEASURED not in text
    assert f"Measured on {report['date'][:10]}" in text
    [row] = [line for line in text.splitlines() if line.startswith("| fp32 | tensorrt |") and "verified" not in line]
    assert row == "| fp32 | tensorrt | yes | 20.0 | 10.0 | 500 | 1,000 | 12.3 | 6, 1 failed |"
    assert "| fp16 | tensorrt | | | | | | | |" in text  # what was not measured keeps its place
    assert len({line.count("|") for line in text.splitlines() if line.startswith("| fp32 | t")}) == 1
    cells = {cell for table in report_tables(report) for row in table.rows for cell in row}
    assert {"6, 1 failed", "tensorrt"} <= cells


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(ArgumentError, match="can't be read"):
        publish({}, page)
    for text in ("# Title\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"):
        page.write_text(text)
        with pytest.raises(ArgumentError, match="has no place for the figures"):
            publish({}, page)
        assert page.read_text() == text


def test_the_page_of_the_documentation_has_a_place_for_each_figure() -> None:
    """Its table is that of a report without figures, or of one that was measured."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    block = text[text.index(BEGIN) : text.index(END) + len(END)]
    if NOT_MEASURED in block:
        assert block == figures_markdown(None)
    for side in BUNDLE_PEERS:
        assert side == "onnxruntime-cpu" or block.count(f"| {side} |") >= 2
