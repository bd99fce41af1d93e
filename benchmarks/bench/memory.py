"""Peak memory of each side and operation, and the GPU's power, each in a fresh process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmcodec.benchmarks.codecs.bundle import DECODE_GRAPHS, ENCODE_GRAPHS, BundleSide, open_codec, sample_batch
from dmcodec.benchmarks.codecs.interface import BUNDLE_PEERS, TORCH_EAGER, Side, runs_on_gpu
from dmcodec.benchmarks.gpu import GpuMeter, open_reader, wait_s
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Bundle
from dmcodec.config import CodecConfig

from .options import BenchOptions
from .result import OPERATIONS, MemoryResult

# FOLDED: The process that `dmcodec.benchmarks.memory` starts: loads one side, runs one operation, writes what that took.


def measure_memory(
    bundle: str | Path, options: BenchOptions, sides: Sequence[str], threads: int, progress: Progress
) -> tuple[MemoryResult, ...]:
    """Peak memory of `sides` of a bundle, for the reference clip; of those on a GPU its memory and power, too.

    Each process loads only what its operation needs (torch: the whole model) and runs it three times; on a GPU then for
    two seconds more, in which its power is read.
    """
    common = {
        "bundle": str(bundle),
        "threads": threads,
        "duration_s": options.reference_s,
        "checkpoint": str(options.checkpoint) if options.checkpoint else None,
        "config": str(options.config) if options.config else None,
    }
    cases = [(side, operation) for side in sides for operation in OPERATIONS]
    results = []
    for done, (side, operation) in enumerate(cases):
        progress("memory", done, len(cases))
        results.append(MemoryResult(side, operation, **_measure({**common, **_kind(side, options)}, operation)))
    progress("memory", len(cases), len(cases))
    return tuple(results)


def _kind(side: str, options: BenchOptions) -> dict[str, Any]:
    """What the process has to know of a side."""
    if side.startswith(TORCH_EAGER):
        return {"torch": True, "gpu": options.on_gpu}
    backend, provider = BUNDLE_PEERS[side] if side in options.peers else (options.backend, options.provider)
    return {"torch": False, "backend": backend, "provider": provider, "gpu": runs_on_gpu(side)}


def _measure(request: dict[str, Any], operation: str) -> dict[str, Any]:
    """The figures of a MemoryResult, or the reason why there are none."""
    command = [sys.executable, "-P", "-m", "dmcodec.benchmarks.bench.memory"]
    request = {**request, "operation": operation}
    done = subprocess.run([*command, json.dumps(request)], capture_output=True, text=True, check=False)
    if done.returncode:
        last_line = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return {"peak_rss_bytes": None, "reason": f"the measuring process failed: {last_line}"}
    figures: dict[str, Any] = json.loads(done.stdout)
    known = figures["peak_rss_bytes"] is not None
    return {**figures, "reason": None if known else "this system doesn't tell a process its peak memory"}


RUNS = 3
POWER_S = 2.0
_STATUS = Path("/proc/self/status")


def peak_rss_bytes() -> int | None:
    """Peak resident memory of this process; None on systems that don't tell."""
    if _STATUS.is_file():
        # Not getrusage: on Linux its ru_maxrss of a started process begins at the peak of the one that started it.
        fields = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None


def main() -> None:
    """Does what the JSON object in the only argument says."""
    request = json.loads(sys.argv[1])
    reader = open_reader() if request["gpu"] else None
    meter = GpuMeter(reader) if reader else None  # before anything is loaded
    if request["torch"]:
        from dmcodec.benchmarks.codecs.torch import torch_threads

        with torch_threads(request["threads"]):
            run, audio_s = _prepared(*_torch_side(request), request)
            _repeat(run)
    else:
        run, audio_s = _prepared(*_bundle_side(request), request)
        _repeat(run)
    figures: dict[str, Any] = {"peak_rss_bytes": peak_rss_bytes()}
    if reader and meter:
        figures |= {"gpu_source": reader.source, **_gpu_figures(meter, run, audio_s)}
    sys.stdout.write(json.dumps(figures))


def _gpu_figures(meter: GpuMeter, run: Callable[[], object], audio_s: float) -> dict[str, float | None]:
    """Runs for POWER_S more, and tells what the GPU took."""
    runs = 0
    start = time.perf_counter()
    with meter.watch() as use:
        for _ in wait_s(POWER_S):
            run()
            runs += 1
    took_s = time.perf_counter() - start
    energy = None if use.power_w is None else use.power_w * took_s / (runs * audio_s)
    return {"peak_gpu_bytes": use.peak_bytes, "power_w": use.power_w, "energy_j_per_audio_s": energy}


def _torch_side(request: dict[str, Any]) -> tuple[Side, CodecConfig]:
    from dmcodec.benchmarks.codecs.torch import EagerSide, load_model

    bundle = Bundle.open(request["bundle"])
    checkpoint, config = (Path(request[name]) if request[name] else None for name in ("checkpoint", "config"))
    model = load_model(bundle, checkpoint, config)
    return EagerSide(model, "cuda" if request["gpu"] else "cpu"), bundle.manifest.config


def _bundle_side(request: dict[str, Any]) -> tuple[Side, CodecConfig]:
    codec = open_codec(request["bundle"], request["backend"], request["provider"], request["threads"])
    side = BundleSide(codec)
    codec.load_graphs(*(ENCODE_GRAPHS if request["operation"] == "encode" else DECODE_GRAPHS))
    return side, codec.config


def _prepared(side: Side, config: CodecConfig, request: dict[str, Any]) -> tuple[Callable[[], object], float]:
    """The operation, ready to run, and the seconds of audio that it works on."""
    waveforms = sample_batch(config, request["duration_s"], 1)
    audio_s = waveforms.size / config.sample_rate
    if request["operation"] == "encode":
        return lambda: side.encode(waveforms), audio_s
    frames = config.num_frames(waveforms.shape[2])
    codes = np.random.default_rng(0).integers(config.codebook_size, size=(config.n_q, 1, frames))
    return lambda: side.decode(codes), audio_s


def _repeat(run: Callable[[], object]) -> None:
    for _ in range(RUNS):
        run()


if __name__ == "__main__":
    main()
