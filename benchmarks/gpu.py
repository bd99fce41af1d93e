"""NVIDIA GPUs: model, memory and power, read through NVML (nvidia-ml-py), else through nvidia-smi."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

_SMI_FIELDS = ("name", "driver_version", "memory.total", "power.limit", "compute_cap", "uuid")
_SMI_TIMEOUT_S = 20.0
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU. What the driver doesn't report is None."""

    name: str
    driver: str
    memory_bytes: int | None
    power_limit_w: float | None
    compute_capability: str | None
    uuid: str


class GpuReader(Protocol):
    """A way to read the GPUs of this machine.

    Attributes:
        source: its name.
        interval_s: shortest useful time between two reads.
    """

    source: str
    interval_s: float

    def gpus(self) -> tuple[Gpu, ...]:
        """Return all GPUs, in the driver's order."""

    def memory_used_bytes(self, index: int) -> int | None:
        """Return the memory in use on one GPU, by all processes."""

    def power_w(self, index: int) -> float | None:
        """Return the power that one GPU draws now."""


def open_reader() -> GpuReader | None:
    """Return a reader: NVML where nvidia-ml-py and a driver are installed, else nvidia-smi, else None."""
    for kind in (NvmlReader, SmiReader):
        with contextlib.suppress(GpuUnknownError):
            return kind()
    return None


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs of this machine; none without a driver."""
    reader = open_reader()
    return reader.gpus() if reader else ()


def chosen_index(gpus: tuple[Gpu, ...], device_id: int = 0) -> int:
    """Return the index of CUDA's device `device_id`, from CUDA_VISIBLE_DEVICES.

    Different GPUs also need CUDA_DEVICE_ORDER=PCI_BUS_ID; otherwise CUDA has another order than the driver.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    named = [name.strip() for name in visible.split(",")][device_id:] if visible else [str(device_id)]
    name = named[0] if named else ""
    if name.isdecimal() and int(name) < len(gpus):
        return int(name)
    matching = (index for index, gpu in enumerate(gpus) if name and gpu.uuid.startswith(name))
    return next(matching, 0)


class GpuUnknownError(Exception):
    """This way to read GPUs doesn't work here. It never reaches the user."""


class NvmlReader:
    """Reads GPUs through NVML."""

    source = "NVML"
    interval_s = 0.01

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise GpuUnknownError from None
        self._nvml: Any = pynvml
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except self._nvml.NVMLError:
            raise GpuUnknownError from None
        if not self._handles:
            raise GpuUnknownError

    def gpus(self) -> tuple[Gpu, ...]:
        """Return all GPUs; see `GpuReader`."""
        driver = _text(self._nvml.nvmlSystemGetDriverVersion())
        return tuple(self._gpu(handle, driver) for handle in self._handles)

    def memory_used_bytes(self, index: int) -> int | None:
        """Return the memory in use; see `GpuReader`."""
        memory = self._query("nvmlDeviceGetMemoryInfo", self._handles[index])
        return None if memory is None else int(memory.used)

    def power_w(self, index: int) -> float | None:
        """Return the power; see `GpuReader`."""
        return _watts(self._query("nvmlDeviceGetPowerUsage", self._handles[index]))

    def _gpu(self, handle: Any, driver: str) -> Gpu:
        memory = self._query("nvmlDeviceGetMemoryInfo", handle)
        capability = self._query("nvmlDeviceGetCudaComputeCapability", handle)
        return Gpu(
            name=_text(self._nvml.nvmlDeviceGetName(handle)),
            driver=driver,
            memory_bytes=None if memory is None else int(memory.total),
            power_limit_w=_watts(self._query("nvmlDeviceGetEnforcedPowerLimit", handle)),
            compute_capability=None if capability is None else ".".join(map(str, capability)),
            uuid=_text(self._query("nvmlDeviceGetUUID", handle) or ""),
        )

    def _query(self, name: str, handle: Any) -> Any:
        """Return the answer of an NVML function; None where this GPU doesn't support it."""
        try:
            return getattr(self._nvml, name)(handle)
        except (AttributeError, self._nvml.NVMLError):
            return None


class SmiReader:
    """Reads GPUs through the program nvidia-smi; each read starts a process."""

    source = "nvidia-smi"
    interval_s = 0.2

    def __init__(self) -> None:
        self._program = shutil.which("nvidia-smi")
        if self._program is None:
            raise GpuUnknownError
        self._rows = self._query(*_SMI_FIELDS)
        if not self._rows:
            raise GpuUnknownError

    def gpus(self) -> tuple[Gpu, ...]:
        """Return all GPUs; see `GpuReader`."""
        return tuple(
            Gpu(name, driver, _mib(memory), _number(limit), capability or None, uuid)
            for name, driver, memory, limit, capability, uuid in self._rows
        )

    def memory_used_bytes(self, index: int) -> int | None:
        """Return the memory in use; see `GpuReader`."""
        rows = self._query("memory.used")
        return _mib(rows[index][0]) if index < len(rows) else None

    def power_w(self, index: int) -> float | None:
        """Return the power; see `GpuReader`."""
        rows = self._query("power.draw")
        return _number(rows[index][0]) if index < len(rows) else None

    def _query(self, *fields: str) -> list[list[str]]:
        command = [str(self._program), f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SMI_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError):
            raise GpuUnknownError from None
        rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
        return [row for row in rows if len(row) == len(fields)]


@dataclasses.dataclass
class GpuUse:
    """Result of a `GpuMeter`. Unknown values are None.

    Attributes:
        peak_bytes: peak memory in use, minus what was in use when the meter was created.
        power_w: mean power.
        samples: number of power values.
    """

    peak_bytes: int | None = None
    power_w: float | None = None
    samples: int = 0


class GpuMeter:
    """Samples memory and power of one GPU in a thread."""

    def __init__(self, reader: GpuReader, device_id: int = 0) -> None:
        self._reader = reader
        self._index = chosen_index(reader.gpus(), device_id)
        self._before: int | None = None
        with contextlib.suppress(GpuUnknownError):  # the peak then stays unknown
            self._before = reader.memory_used_bytes(self._index)

    @contextlib.contextmanager
    def watch(self) -> Iterator[GpuUse]:
        """Sample memory and power while the block runs; the yielded value is complete when the block has ended."""
        use, powers, peaks, done = GpuUse(), [], [], threading.Event()

        def sample() -> None:
            while True:
                with contextlib.suppress(GpuUnknownError):
                    peaks.append(self._reader.memory_used_bytes(self._index))
                    powers.append(self._reader.power_w(self._index))
                if done.wait(self._reader.interval_s):
                    return

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield use
        finally:
            done.set()
            thread.join()
            known = [peak for peak in peaks if peak is not None]
            drawn = [power for power in powers if power is not None]
            if known and self._before is not None:
                use.peak_bytes = max(0, max(known) - self._before)
            use.power_w = sum(drawn) / len(drawn) if drawn else None
            use.samples = len(drawn)


def wait_s(seconds: float) -> Iterator[float]:
    """Yield the elapsed seconds since the first step, until `seconds` have passed."""
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        yield elapsed


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _watts(milliwatts: Any) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]", "[Not Supported]"
        return None


def _mib(text: str) -> int | None:
    number = _number(text)
    return None if number is None else round(number * MIB)
