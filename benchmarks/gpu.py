"""NVIDIA GPUs: what they are, their memory, their power; through NVML (nvidia-ml-py), else nvidia-smi."""

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
    """One GPU; what the driver doesn't tell is None."""

    name: str
    driver: str
    memory_bytes: int | None
    power_limit_w: float | None
    compute_capability: str | None
    uuid: str


class GpuReader(Protocol):
    """Reads the GPUs of this machine. `source` names what it reads with, `interval_s` how often that makes sense."""

    source: str
    interval_s: float

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, in the driver's order."""

    def memory_used_bytes(self, index: int) -> int | None:
        """Memory in use on one GPU, by whatever process."""

    def power_w(self, index: int) -> float | None:
        """Power that one GPU draws now."""


def open_reader() -> GpuReader | None:
    """NVML where nvidia-ml-py and a driver are there, else nvidia-smi, else None."""
    for kind in (NvmlReader, SmiReader):
        with contextlib.suppress(GpuUnknownError):
            return kind()
    return None


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine; none where there is no driver."""
    reader = open_reader()
    return reader.gpus() if reader else ()


def chosen_index(gpus: tuple[Gpu, ...]) -> int:
    """Which of them CUDA calls device 0, by CUDA_VISIBLE_DEVICES (and CUDA_DEVICE_ORDER=PCI_BUS_ID, if they differ)."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if first.isdecimal() and int(first) < len(gpus):
        return int(first)
    matching = (index for index, gpu in enumerate(gpus) if first and gpu.uuid.startswith(first))
    return next(matching, 0)


class GpuUnknownError(Exception):
    """There is no such way to ask for GPUs here."""


class NvmlReader:
    """Through NVML."""

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
        """See `GpuReader`."""
        driver = _text(self._nvml.nvmlSystemGetDriverVersion())
        return tuple(self._gpu(handle, driver) for handle in self._handles)

    def memory_used_bytes(self, index: int) -> int | None:
        """See `GpuReader`."""
        found = self._asked("nvmlDeviceGetMemoryInfo", self._handles[index])
        return None if found is None else int(found.used)

    def power_w(self, index: int) -> float | None:
        """See `GpuReader`."""
        return _watts(self._asked("nvmlDeviceGetPowerUsage", self._handles[index]))

    def _gpu(self, handle: Any, driver: str) -> Gpu:
        memory = self._asked("nvmlDeviceGetMemoryInfo", handle)
        capability = self._asked("nvmlDeviceGetCudaComputeCapability", handle)
        return Gpu(
            name=_text(self._nvml.nvmlDeviceGetName(handle)),
            driver=driver,
            memory_bytes=None if memory is None else int(memory.total),
            power_limit_w=_watts(self._asked("nvmlDeviceGetEnforcedPowerLimit", handle)),
            compute_capability=None if capability is None else ".".join(map(str, capability)),
            uuid=_text(self._asked("nvmlDeviceGetUUID", handle) or ""),
        )

    def _asked(self, name: str, handle: Any) -> Any:
        """What NVML answers; None where this GPU doesn't support the question."""
        try:
            return getattr(self._nvml, name)(handle)
        except (AttributeError, self._nvml.NVMLError):
            return None


class SmiReader:
    """Through the program nvidia-smi, a process for each question."""

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
        """See `GpuReader`."""
        return tuple(
            Gpu(name, driver, _mib(memory), _number(limit), capability or None, uuid)
            for name, driver, memory, limit, capability, uuid in self._rows
        )

    def memory_used_bytes(self, index: int) -> int | None:
        """See `GpuReader`."""
        rows = self._query("memory.used")
        return _mib(rows[index][0]) if index < len(rows) else None

    def power_w(self, index: int) -> float | None:
        """See `GpuReader`."""
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
    """What a meter saw: the most memory beyond what was in use before, and the mean power; None where unknown."""

    peak_bytes: int | None = None
    power_w: float | None = None
    samples: int = 0


class GpuMeter:
    """Samples one GPU in a thread, from `start` on."""

    def __init__(self, reader: GpuReader) -> None:
        self._reader = reader
        self._index = chosen_index(reader.gpus())
        self._before: int | None = None
        with contextlib.suppress(GpuUnknownError):  # the figure then stays unknown
            self._before = reader.memory_used_bytes(self._index)

    @contextlib.contextmanager
    def watch(self) -> Iterator[GpuUse]:
        """Samples memory and power while the block runs; the yielded value is filled in when it ends."""
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
    """Yields the seconds gone since the first step, until `seconds` are over."""
    start = time.perf_counter()
    while (gone := time.perf_counter() - start) < seconds:
        yield gone


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
