"""One benchmark of a bundle, from opening it to the peak memory of each codec."""

from __future__ import annotations

import time
from pathlib import Path

from dmcodec.benchmarks.codecs.bundle import BundleCodec, open_bundle
from dmcodec.benchmarks.codecs.registry import TENSORRT
from dmcodec.benchmarks.machine import PACKAGES, describe_machine, utc_now
from dmcodec.benchmarks.timing import Progress, no_progress
from dmcodec.bundle import Bundle
from dmcodec.cpus import default_threads
from dmcodec.runtime.backend import Captures, device_side
from dmcodec.runtime.tensorrt.engine_store import EngineRecord, EngineStore, engine_folder

from .live_streams import measure_live_streams
from .measure import measure_graphs, measure_shape, measure_stream
from .memory import measure_memory
from .options import BenchOptions
from .peers import open_peers
from .result import BenchResult, BundleDescription, Comparison, EngineDescription, Measurement


def run_bench(bundle: str | Path, options: BenchOptions, progress: Progress = no_progress) -> BenchResult:
    """Measure the bundle at a path; this takes seconds to minutes.

    Raises:
        BundleError, BackendError, ProviderError: the bundle can't run with these options.
        CheckpointError: the torch peer has other weights than the bundle.
        MissingDependencyError: onnxruntime, or torch for the torch peer, isn't installed.
    """
    date, machine = utc_now(), describe_machine(PACKAGES)
    threads = options.threads or default_threads()
    open_s = _open_s(bundle)
    opened = open_bundle(bundle, options.backend, options.provider, options.threads, device_id=options.device_id)
    codec = BundleCodec(opened)
    measurements: list[Measurement] = []
    comparisons: list[Comparison] = []
    with open_peers(codec.codec.bundle, options, threads, progress) as peers:
        graphs = measure_graphs(codec, options, progress)
        for shape in options.shapes:
            measured, compared = measure_shape(
                codec, peers.at(shape, options.reference), shape, options.rounds, progress
            )
            measurements += measured
            comparisons += compared
        in_memory = [codec.name, *(peer.name for peer in peers.codecs if peer.name not in peers.fixed_shape)]
    return BenchResult(
        date=date,
        command=options.command,
        side=codec.name,
        machine=machine,
        threads=threads,
        rounds=options.rounds,
        reference_s=options.reference_s,
        bundle=_describe_bundle(codec),
        open_s=open_s,
        graphs=graphs,
        measurements=tuple(measurements),
        comparisons=tuple(comparisons),
        peer_loading=tuple(peers.loading),
        peer_failures=tuple(peers.failures),
        memory=measure_memory(bundle, options, in_memory, threads, progress),
        stream=measure_stream(codec, options, progress) if options.stream else None,
        live=measure_live_streams(codec, options, progress) if options.streams else None,
        engines=describe_engines(bundle) if TENSORRT in (codec.name, *options.peers) else (),
        captures=describe_captures(codec),
    )


def _open_s(bundle: str | Path) -> float:
    start = time.perf_counter()
    Bundle.open(bundle, again=True)
    return time.perf_counter() - start


def _describe_bundle(bundle: BundleCodec) -> BundleDescription:
    codec = bundle.codec
    manifest = codec.bundle.manifest
    return BundleDescription(
        path=str(codec.bundle.path),
        model_id=manifest.model_id,
        precision=manifest.precision,
        size_bytes=manifest.size_bytes,
        backend=f"{codec.backend.name} {codec.backend.version}",
        provider=codec.backend.provider,
        provenance=manifest.provenance,
        parity={name: value for name, value in manifest.parity.items() if name != "cases"},
    )


def describe_captures(bundle: BundleCodec) -> Captures | None:
    """Return what became of the fixed shapes that ran; None where the backend captures no CUDA graphs."""
    side = device_side(bundle.codec.backend)
    return None if side is None else side.captures()


def describe_engines(bundle: str | Path) -> tuple[EngineDescription, ...]:
    """Describe the engines in a bundle; those with a broken record are left out (running them reports the error)."""
    records, _problems = EngineStore(engine_folder(Path(bundle), None)).records()
    return tuple(_describe_engine(record) for record in records)


def _describe_engine(record: EngineRecord) -> EngineDescription:
    key = record.key
    return EngineDescription(
        graph=key.graph,
        precision=key.precision,
        library=f"{key.flavour} {key.version}",
        architectures=key.architectures,
        size_bytes=record.size_bytes,
        build_s=record.facts.get("build_s"),
    )
