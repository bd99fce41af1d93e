"""Reading GPUs through NVML or nvidia-smi, with stand-ins for both, and without either."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dmcodec.benchmarks.bench.options import BenchOptions
from dmcodec.benchmarks.bench.record_tables import record_tables
from dmcodec.benchmarks.bench.result_tables import gpu_line, memory_table
from dmcodec.benchmarks.bench.run import run_bench
from dmcodec.benchmarks.gpu import GpuMeter, NvmlReader, SmiReader, chosen_index, find_gpus, open_reader, wait_s
from dmcodec.benchmarks.machine import describe_machine

SMI = """#!/bin/sh
case "$1" in
  *memory.used*) echo 1024; echo 3 ;;
  *power.draw*) echo 250.50; echo "[N/A]" ;;
  *) echo "GPU One, 590.1, 2048, 300.00, 9.0, GPU-aa"; echo "GPU Two, 590.1, [N/A], [N/A], 8.6, GPU-bb" ;;
esac
"""


class FakeNvml(SimpleNamespace):
    """What of pynvml is used, for one GPU that doesn't tell its power limit."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__(used=100)

    def nvmlInit(self) -> None:  # noqa: N802 - names of the library
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "590.1"

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return b"GPU One"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        self.used += 10
        return SimpleNamespace(used=self.used, total=2048)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        return 250_000

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        return (9, 0)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:  # noqa: N802
        raise self.NVMLError("not supported")


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def put_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_nothing_there(no_nvml: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_reader() is None
    assert find_gpus() == describe_machine(()).gpus == ()


def test_a_driver_that_fails_is_no_gpu(no_nvml: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_smi(tmp_path, monkeypatch, "#!/bin/sh\necho 'has failed because it could not talk to the driver'\nexit 9\n")
    assert open_reader() is None


def test_nvidia_smi_stands_in_for_nvml(no_nvml: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_smi(tmp_path, monkeypatch, SMI)
    reader = open_reader()
    assert isinstance(reader, SmiReader)
    first, second = reader.gpus()
    assert (first.name, first.driver, first.memory_bytes) == ("GPU One", "590.1", 2048 * 2**20)
    assert (second.memory_bytes, second.power_limit_w, second.compute_capability) == (None, None, "8.6")
    assert (reader.memory_used_bytes(0), reader.power_w(0), reader.power_w(1)) == (2**30, 250.5, None)
    assert gpu_line(first) == "GPU One, driver 590.1, 2,048 MiB, 300 W at most"
    for visible, index in (("1", 1), ("GPU-bb", 1), ("GPU-aa,GPU-bb", 0), ("", 0), ("7", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert chosen_index(reader.gpus()) == index


def test_a_meter_tells_peak_memory_and_mean_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    reader = open_reader()
    assert isinstance(reader, NvmlReader)
    [gpu] = reader.gpus()
    assert (gpu.name, gpu.memory_bytes, gpu.power_limit_w, gpu.uuid) == ("GPU One", 2048, None, "")
    meter = GpuMeter(reader)
    with meter.watch() as use:
        for _ in wait_s(0.1):
            time.sleep(0.01)
    assert use.samples >= 2
    assert use.peak_bytes == 10 * use.samples
    assert use.power_w == 250


def test_gpu_figures_stand_in_the_tables(tiny_bundle: Path, no_nvml: None, monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: Path) -> None:  # fmt: skip
    """The CPU is measured as if it were a GPU that the stand-in nvidia-smi watches."""
    put_smi(tmp_path, monkeypatch, SMI)
    monkeypatch.setattr("dmcodec.benchmarks.bench.memory.runs_on_gpu", lambda codec: True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "pynvml.py").write_text("raise ImportError\n")
    options = BenchOptions(durations_s=(0.1,), batches=(1,), rounds=1, threads=1)
    result = run_bench(tiny_bundle, options)
    entry = result.memory[0]
    assert (entry.peak_gpu_bytes, entry.power_w, entry.gpu_source) == (0, 250.5, "nvidia-smi")
    assert entry.energy_j_per_audio_s is not None
    table = memory_table(result)
    assert table.columns[-3:] == ("GPU MiB", "W", "J per s of audio")
    assert table.rows[0][3:5] == ("0", "250")
    assert any("GPU One" in cell for row in record_tables(result)[0].rows for cell in row)
    without = dataclasses.replace(result, memory=(dataclasses.replace(entry, gpu_source=None),))
    assert memory_table(without).columns == ("codec", "operation", "MiB")
