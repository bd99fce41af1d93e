"""Result of `dmcodec bench`: frozen values for JSON, for tables and for the report. Field names are the JSON keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dmcodec.benchmarks.load import Load
from dmcodec.benchmarks.machine import Machine
from dmcodec.benchmarks.timing import Speed, Timing
from dmcodec.runtime.backend import Captures

FORMAT_VERSION = 1
OPERATIONS = ("encode", "decode")


@dataclasses.dataclass(frozen=True)
class GraphResult:
    """One graph alone, on the reference clip.

    Attributes:
        operation: "encode" or "decode", of which the graph is a part.
        load_s: time to create its session.
        first_run_s: first run after loading (warm-up).
        timing, speed: steady state.
    """

    graph: str
    operation: str
    load_s: float
    first_run_s: float
    timing: Timing
    speed: Speed


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One operation of one codec (`side`) at one shape, end to end. `first_run_s`: its first run at this shape."""

    side: str
    operation: str
    duration_s: float
    batch: int
    first_run_s: float
    timing: Timing
    speed: Speed


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The bundle compared with one peer at one shape.

    Attributes:
        encode_speedup, decode_speedup: median over the pairs of peer time / bundle time; above 1: the bundle is faster.
        encode_quartiles, decode_quartiles: lower and upper quartile over the same pairs.
        code_agreement: share of equal codes, 0 to 1; None where the peer is another network.
        waveform_snr_db: of the bundle's waveform against the peer's, both decoded from the bundle's codes; None where
            the peer is another network.
    """

    peer: str
    duration_s: float
    batch: int
    encode_speedup: float
    decode_speedup: float
    code_agreement: float | None
    waveform_snr_db: float | None
    encode_quartiles: tuple[float, float]
    decode_quartiles: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """One codec compared with `reference`, which computes the same network in float32.

    Attributes:
        duration_s: of the clip, real speech.
        latents_snr_db: of the encoder's output; None where the codec does not give it.
        code_agreement, level0_agreement: shares of equal codes, of all levels and of level 0, 0 to 1.
        waveform_snr_db: of what both decode from the reference's codes.
    """

    side: str
    reference: str
    duration_s: float
    latents_snr_db: float | None
    code_agreement: float
    level0_agreement: float
    waveform_snr_db: float


@dataclasses.dataclass(frozen=True)
class PeerCodec:
    """A codec that was named by its path beside the bundle: a model of transformers, another bundle or a checkpoint.

    Attributes:
        frame_rate: frames a second.
        n_q: levels that it ran with.
        bitrate_bps: of these levels.
        same_network: whether it has the weights of the bundle; else only times are compared, and each codec decodes
            its own codes.
    """

    peer: str
    description: str
    sample_rate: int
    frame_rate: float
    n_q: int
    bitrate_bps: float
    same_network: bool


@dataclasses.dataclass(frozen=True)
class PeerLoading:
    """Time that a peer needs before its first run. `compile_s`: compilation with the runs in which it happens."""

    peer: str
    load_s: float
    compile_s: float | None


@dataclasses.dataclass(frozen=True)
class PeerFailure:
    """A peer that could not be measured, and the reason."""

    peer: str
    reason: str


@dataclasses.dataclass(frozen=True)
class MemoryResult:
    """A new process that opens one codec (`side`) and runs one operation. Unknown values are None.

    Attributes:
        peak_rss_bytes: peak resident memory.
        reason: why there are no values.
        peak_gpu_bytes: peak GPU memory in use, minus what was in use before the process loaded anything.
        power_w: mean power of the GPU during repeated runs.
        energy_j_per_audio_s: energy for one second of audio at that power.
        gpu_source: "NVML" or "nvidia-smi".
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
        chunk_s: duration of the audio of one push.
        look_ahead_s: duration of the speech that must follow a frame before its audio is final, from the network's
            layers.
        tokens_needed_s: duration of the speech whose tokens must have arrived before the first audio: look-ahead and
            one frame, in whole chunks.
        first_audio_compute_s: compute time of the pushes up to the first audio, median over the streams.
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
class LiveLevel:
    """Pushes of a number of live streams at once.

    Attributes:
        operation: "encode" or "decode".
        side: "pooled", or "separate": each stream on its own.
        streams: their number.
        pushes: latencies that were measured.
        p50_s, p99_s: percentiles of the latencies, from when a push is due until its result is there.
        holds: whether p99 is under the limit.
    """

    operation: str
    side: str
    streams: int
    pushes: int
    p50_s: float
    p99_s: float
    holds: bool


@dataclasses.dataclass(frozen=True)
class LiveCapacity:
    """The largest number of live streams whose p99 is under the limit.

    Attributes:
        is_lower_bound: whether the search ended before the machine fell behind.
    """

    operation: str
    side: str
    streams: int
    is_lower_bound: bool


@dataclasses.dataclass(frozen=True)
class LiveResult:
    """Many live streams at once.

    Attributes:
        chunk_s: duration of the audio of one push, and the time between two pushes of a stream.
        limit_s: of the latency's p99.
        levels: numbers of streams that were asked for.
        capacities: found by a search.
    """

    chunk_s: float
    limit_s: float
    levels: tuple[LiveLevel, ...]
    capacities: tuple[LiveCapacity, ...]


@dataclasses.dataclass(frozen=True)
class BundleDescription:
    """The bundle that was measured. `parity`: the worst values of the export, without its cases."""

    path: str
    model_id: str
    precision: str
    size_bytes: int
    backend: str
    provider: str
    provenance: Mapping[str, Any]
    parity: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class EngineDescription:
    """One TensorRT engine. `build_s`: time of its build, which is part of no other time; None where unknown."""

    graph: str
    precision: str
    library: str
    architectures: tuple[str, ...]
    size_bytes: int
    build_s: float | None


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """Result of one benchmark.

    Attributes:
        date: start in UTC, ISO 8601.
        side: name of the bundle in `measurements` and `memory`: its backend.
        reference_s: clip length of `graphs`, `memory` and the batches.
        open_s: time to read the bundle and verify its checksums.
        engines: TensorRT engines, where TensorRT ran.
        live: many live streams at once, where they were asked for.
        captures: fixed shapes that ran from CUDA graphs, and those that could not; where TensorRT ran the bundle.
        peer_codecs: codecs that were named by their paths.
        fidelity: of the bundle and its peers of the same network, against float32.
        load: of the machine, and whether the times are a measurement.
        budget_s: the time that the benchmark was given, where it was.
        left_out: what was left out for that, and why.
        headline: the worst ratio and what it costs, in a sentence.
    """

    date: str
    command: str
    side: str
    machine: Machine
    threads: int
    rounds: int
    reference_s: float
    bundle: BundleDescription
    open_s: float
    graphs: tuple[GraphResult, ...]
    measurements: tuple[Measurement, ...]
    comparisons: tuple[Comparison, ...]
    peer_loading: tuple[PeerLoading, ...]
    peer_failures: tuple[PeerFailure, ...]
    memory: tuple[MemoryResult, ...]
    stream: StreamResult | None
    engines: tuple[EngineDescription, ...] = ()
    live: LiveResult | None = None
    captures: Captures | None = None
    peer_codecs: tuple[PeerCodec, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()
    load: Load | None = None
    budget_s: float | None = None
    left_out: tuple[str, ...] = ()
    headline: str = ""

    @property
    def is_measurement(self) -> bool:
        """Whether the machine was free enough for its times to be a measurement."""
        return self.load is None or self.load.is_measurement

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format_version": FORMAT_VERSION,
            "is_measurement": self.is_measurement,
            **dataclasses.asdict(self),
        }
