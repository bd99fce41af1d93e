"""One whole measurement of a bundle, from opening it to the peak memory of its sides."""

from __future__ import annotations

import datetime
import time
from pathlib import Path

from dmcodec.benchmarks.codecs.bundle import BundleSide, open_codec
from dmcodec.benchmarks.codecs.interface import TENSORRT
from dmcodec.benchmarks.machine import PACKAGES, describe_machine
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Bundle
from dmcodec.runtime.onnxruntime_backend import usable_cpus
from dmcodec.runtime.tensorrt.engine_store import EngineRecord, EngineStore, engine_folder

from .measure import measure_graphs, measure_shape, measure_stream
from .memory import measure_memory
from .options import BenchOptions
from .peers import open_peers
from .result import BenchResult, BundleFacts, Comparison, EngineFacts, Measurement


def run_bench(bundle: str | Path, options: BenchOptions, progress: Progress | None = None) -> BenchResult:
    """Measures the bundle at a path as `options` say; takes seconds to minutes.

    Raises:
        BundleError, BackendError, ProviderError: the bundle can't be run as asked.
        CheckpointError: the torch peer's weights aren't those of the bundle.
        MissingDependencyError: onnxruntime, or torch for the torch peer, isn't installed.
    """
    report = progress or (lambda _stage, _done, _total: None)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    machine = describe_machine(PACKAGES)
    threads = options.threads or usable_cpus()
    open_s = _open_s(bundle)
    side = BundleSide(open_codec(bundle, options.backend, options.provider, threads))
    measurements: list[Measurement] = []
    comparisons: list[Comparison] = []
    with open_peers(side.codec.bundle, options, threads, report) as peers:
        graphs = measure_graphs(side, options, report)
        for shape in options.shapes:
            at_shape = peers.at(shape, options.reference)
            measured, compared = measure_shape(side, at_shape, shape, options.rounds, report)
            measurements += measured
            comparisons += compared
        in_memory = [side.name, *(peer.name for peer in peers.sides if peer.name not in peers.fixed)]
    return BenchResult(
        date=date,
        command=options.command,
        side=side.name,
        machine=machine,
        threads=threads,
        rounds=options.rounds,
        reference_s=options.reference_s,
        bundle=_facts(side),
        open_s=open_s,
        graphs=graphs,
        measurements=tuple(measurements),
        comparisons=tuple(comparisons),
        peer_loading=tuple(peers.loading),
        peer_failures=tuple(peers.failures),
        memory=measure_memory(bundle, options, in_memory, threads, report),
        stream=measure_stream(side, options, report) if options.stream else None,
        engines=engines_of(bundle) if TENSORRT in (side.name, *options.peers) else (),
    )


def _open_s(bundle: str | Path) -> float:
    start = time.perf_counter()
    Bundle.open(bundle)
    return time.perf_counter() - start


def _facts(side: BundleSide) -> BundleFacts:
    codec = side.codec
    manifest = codec.bundle.manifest
    return BundleFacts(
        path=str(codec.bundle.path),
        model_id=manifest.model_id,
        precision=manifest.precision,
        size_bytes=manifest.size_bytes,
        backend=f"{codec.backend.name} {codec.backend.version}",
        provider=codec.backend.provider,
        provenance=manifest.provenance,
        parity={name: value for name, value in manifest.parity.items() if name != "cases"},
    )


def engines_of(bundle: str | Path) -> tuple[EngineFacts, ...]:
    """The engines in a bundle whose record is whole; of the others the backend says what is wrong when it runs."""
    records, _problems = EngineStore(engine_folder(Path(bundle), None)).records()
    return tuple(_engine_facts(record) for record in records)


def _engine_facts(record: EngineRecord) -> EngineFacts:
    key = record.key
    return EngineFacts(
        graph=key.graph,
        precision=key.precision,
        library=f"{key.flavour} {key.version}",
        architectures=key.architectures,
        size_bytes=record.size_bytes,
        build_s=record.facts.get("build_s"),
    )
