"""What was measured, as frozen values that go to JSON, to tables and to the report alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dmcodec.benchmarks.machine import Machine
from dmcodec.benchmarks.timing import Speed, Timing

FORMAT_VERSION = 1
OPERATIONS = ("encode", "decode")


@dataclasses.dataclass(frozen=True)
class GraphResult:
    """One graph alone: its share of the reference clip.

    Attributes:
        load_s: creating its session.
        first_run_s: the first run after loading (warm-up).
        timing, speed: the steady state that follows.
    """

    graph: str
    operation: str
    load_s: float
    first_run_s: float
    timing: Timing
    speed: Speed


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One operation of one side at one shape, end to end. `first_run_s` is its first run at this shape."""

    side: str
    operation: str
    duration_s: float
    batch: int
    first_run_s: float
    timing: Timing
    speed: Speed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The bundle against one peer at one shape.

    Attributes:
        encode_speedup, decode_speedup: median over the pairs of peer time / bundle time; above 1: the bundle is faster.
        code_agreement: share of equal codes, 0 to 1.
        waveform_snr_db: of the bundle's waveform against the peer's, both decoded from the bundle's codes.
    """

    peer: str
    duration_s: float
    batch: int
    encode_speedup: float
    decode_speedup: float
    code_agreement: float
    waveform_snr_db: float


@dataclasses.dataclass(frozen=True)
class PeerLoading:
    """What a peer took before its first run. `compile_s` holds compiling and the runs that it happens in."""

    peer: str
    load_s: float
    compile_s: float | None


@dataclasses.dataclass(frozen=True)
class PeerFailure:
    """A peer that could not be measured, and why."""

    peer: str
    reason: str


@dataclasses.dataclass(frozen=True)
class MemoryResult:
    """A fresh process that loads one side and runs one operation; None where a figure can't be had.

    Attributes:
        peak_rss_bytes: peak resident memory.
        reason: why there are no figures.
        peak_gpu_bytes: most GPU memory in use, beyond what was in use before the process loaded anything.
        power_w: mean power of the GPU while the operation ran again and again.
        energy_j_per_audio_s: what that makes for a second of audio.
        gpu_source: what the GPU was read with.
    """

    side: str
    operation: str
    peak_rss_bytes: int | None
    reason: str | None
    peak_gpu_bytes: int | None = None
    power_w: float | None = None
    energy_j_per_audio_s: float | None = None
    gpu_source: str | None = None


@dataclasses.dataclass(frozen=True)
class StreamResult:
    """Streaming decode of the bundle.

    Attributes:
        chunk_s: speech in one push.
        look_ahead_s: speech that must follow a frame before its audio is final, by the network's layout.
        tokens_needed_s: speech whose tokens must have come before the first audio: look-ahead and a frame, in whole
            chunks.
        first_audio_compute_s: time that the pushes up to the first audio take, median over the streams.
        push: times of single pushes.
        speed: of a whole stream.
    """

    chunk_s: float
    look_ahead_s: float
    tokens_needed_s: float
    first_audio_compute_s: float
    push: Timing
    speed: Speed


@dataclasses.dataclass(frozen=True)
class BundleFacts:
    """The bundle that was measured. `parity` holds the worst figures of the export, without the single cases."""

    path: str
    model_id: str
    precision: str
    size_bytes: int
    backend: str
    provider: str
    provenance: Mapping[str, Any]
    parity: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """One whole measurement.

    Attributes:
        date: start in UTC, ISO 8601.
        side: the bundle's name in `measurements` and `memory`: its backend.
        open_s: reading the bundle and verifying its checksums.
        reference_s: clip length of `graphs`, `memory` and the batch sweep.
        engines: where TensorRT ran: the engines, with the time that building each took.
    """

    date: str
    command: str
    side: str
    machine: Machine
    threads: int
    rounds: int
    reference_s: float
    bundle: BundleFacts
    open_s: float
    graphs: tuple[GraphResult, ...]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]
    peer_loading: tuple[PeerLoading, ...]
    peer_failures: tuple[PeerFailure, ...]
    memory: tuple[MemoryResult, ...]
    stream: StreamResult | None
    engines: tuple[EngineFacts, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class EngineFacts:
    """One engine. `build_s` is the time of its build, which no figure of a run contains; None where unknown."""

    graph: str
    precision: str
    library: str
    architectures: tuple[str, ...]
    size_bytes: int
    build_s: float | None
