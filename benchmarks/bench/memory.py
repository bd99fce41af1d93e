"""Peak memory of each codec and operation, and the power of the GPU; each is measured in a new process.

`main` runs in that process: it opens one codec, runs one operation, and prints
what this took as JSON.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.benchmarks.codecs.bundle import BundleCodec, open_bundle
from dmcodec.benchmarks.codecs.interface import MeasuredCodec
from dmcodec.benchmarks.codecs.named import Named
from dmcodec.benchmarks.codecs.registry import BUNDLE_PEERS, runs_on_gpu
from dmcodec.benchmarks.codecs.torch import load_model, torch_threads
from dmcodec.benchmarks.gpu import GpuMeter, open_reader, wait_s
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Bundle

from .budget import Budget
from .measure import speech_batch
from .options import BenchOptions, Shape
from .other_codecs import codec_name, needs_torch, open_other_codec
from .peers import EAGER_KINDS
from .result import OPERATIONS, MemoryResult

RUNS = 3
POWER_S = 2.0
_STATUS = Path("/proc/self/status")


def measure_memory(
    bundle: str | Path,
    options: BenchOptions,
    codecs: Sequence[str],
    threads: int,
    progress: Progress,
    budget: Budget | None = None,
) -> tuple[MemoryResult, ...]:
    """Measure the peak memory of the codecs of these names for the reference clip, and GPU memory and power on a GPU.

    Each process loads only what its operation needs (torch: the whole model) and runs it RUNS times; on a GPU it then
    runs for POWER_S more, while the power is read. Codecs that don't fit into the budget are left out.
    """
    common = {
        "bundle": str(bundle),
        "threads": threads,
        "duration_s": options.reference_s,
        "checkpoint": str(options.checkpoint) if options.checkpoint else None,
        "config": str(options.config) if options.config else None,
    }
    cases = [(codec, operation) for codec in codecs for operation in OPERATIONS]
    results: list[MemoryResult] = []
    took_s = 0.0
    for done, (codec, operation) in enumerate(cases):
        progress("memory", done, len(cases))
        rest = list(dict.fromkeys(name for name, _ in cases[done:]))
        if budget and not budget.allows(f"memory of {', '.join(rest)}", max(1.0, took_s)):
            break
        start = time.perf_counter()
        request = {**common, **_codec_request(codec, options), "operation": operation}
        results.append(MemoryResult(codec, operation, **_run_process(request)))
        took_s = time.perf_counter() - start
    progress("memory", len(cases), len(cases))
    return tuple(results)


def _codec_request(codec: str, options: BenchOptions) -> dict[str, Any]:
    """Return what the process must know to open a codec."""
    for entry in options.other_codecs:
        if codec == codec_name(entry):
            levels = {"n_q": options.n_q, "device_id": options.device_id}
            return {"path": str(entry.path), "torch": needs_torch(entry.path), "gpu": options.on_gpu, **levels}
    for name in EAGER_KINDS:
        if codec == name or codec.startswith(f"{name}-cuda"):
            return {"torch": name, "gpu": options.on_gpu}
    backend, provider = BUNDLE_PEERS[codec] if codec in options.peers else (options.backend, options.provider)
    on_gpu = runs_on_gpu(codec)
    device_id = options.device_id if on_gpu else None
    return {"torch": None, "backend": backend, "provider": provider, "gpu": on_gpu, "device_id": device_id}


def _run_process(request: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a `MemoryResult`, or the reason why there are none."""
    code = "from dmcodec.benchmarks.bench.memory import main; main()"
    command = [sys.executable, "-P", "-c", code, json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return {"peak_rss_bytes": None, "reason": f"the measuring process failed: {last_line}"}
    values: dict[str, Any] = json.loads(done.stdout)
    known = values["peak_rss_bytes"] is not None
    return {**values, "reason": None if known else "this system doesn't report the peak memory of a process"}


def main() -> None:
    """Measure what the JSON object in the only argument describes, and print the values as JSON."""
    request = json.loads(sys.argv[1])
    reader = open_reader() if request["gpu"] else None
    meter = GpuMeter(reader, request.get("device_id") or 0) if reader else None  # before anything is loaded
    with torch_threads(request["threads"]) if request["torch"] else contextlib.nullcontext():
        run, audio_s = _operation(_open(request), request)
        _repeat(run)
    values: dict[str, Any] = {"peak_rss_bytes": peak_rss_bytes()}
    if reader and meter:
        values |= {"gpu_source": reader.source, **_gpu_values(meter, run, audio_s)}
    sys.stdout.write(json.dumps(values))


def peak_rss_bytes() -> int | None:
    """Return the peak resident memory of this process; None where the system doesn't report it."""
    if _STATUS.is_file():
        # Not getrusage: on Linux, ru_maxrss of a child process starts at the peak of its parent.
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def _open(request: dict[str, Any]) -> MeasuredCodec:
    if "path" in request:
        device = f"cuda:{request['device_id'] or 0}" if request["gpu"] else "cpu"
        entry, bundle = Named(Path(request["path"])), Bundle.open(request["bundle"])
        return open_other_codec(entry, bundle, request["n_q"], request["threads"], device)[0]
    return _open_torch(request) if request["torch"] else _open_bundle(request)


def _open_torch(request: dict[str, Any]) -> MeasuredCodec:
    checkpoint, config = (Path(request[name]) if request[name] else None for name in ("checkpoint", "config"))
    model = load_model(Bundle.open(request["bundle"]), checkpoint, config)
    return EAGER_KINDS[request["torch"]](model, "cuda" if request["gpu"] else "cpu")


def _open_bundle(request: dict[str, Any]) -> MeasuredCodec:
    backend, provider, threads = request["backend"], request["provider"], request["threads"]
    # The operation loads the graphs that it needs: which these are depends on the clip and on the backend.
    return BundleCodec(open_bundle(request["bundle"], backend, provider, threads, device_id=request["device_id"]))


def _operation(codec: MeasuredCodec, request: dict[str, Any]) -> tuple[Callable[[], object], float]:
    """Return the operation with its input, and the seconds of audio in that."""
    waveforms = speech_batch(Shape(request["duration_s"], 1), codec.sample_rate)
    audio_s = waveforms.size / codec.sample_rate
    if request["operation"] == "encode":
        return lambda: codec.encode(waveforms), audio_s
    frames = -(-waveforms.shape[2] // codec.hop_length)
    codes = np.random.default_rng(0).integers(codec.codebook_size, size=(codec.n_q, 1, frames))
    return lambda: codec.decode(codes), audio_s


def _repeat(run: Callable[[], object]) -> None:
    for _ in range(RUNS):
        run()


def _gpu_values(meter: GpuMeter, run: Callable[[], object], audio_s: float) -> dict[str, float | None]:
    """Run for POWER_S more, and return the memory, power and energy of the GPU."""
    runs = 0
    start = time.perf_counter()
    with meter.watch() as use:
        for _ in wait_s(POWER_S):
            run()
            runs += 1
    took_s = time.perf_counter() - start
    energy = None if use.power_w is None else use.power_w * took_s / (runs * audio_s)
    return {"peak_gpu_bytes": use.peak_bytes, "power_w": use.power_w, "energy_j_per_audio_s": energy}
