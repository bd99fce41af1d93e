"""One benchmark of a bundle, from opening it to the peak memory of each codec."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from dmcodec.benchmarks.codecs.bundle import BundleCodec, open_bundle
from dmcodec.benchmarks.codecs.registry import TENSORRT, levels_to_report
from dmcodec.benchmarks.codecs.torch import TORCH_COMPILE
from dmcodec.benchmarks.load import LoadWatch
from dmcodec.benchmarks.machine import PACKAGES, describe_machine, utc_now
from dmcodec.benchmarks.timing import Progress, no_progress
from dmcodec.bundle import Bundle
from dmcodec.cpus import default_threads
from dmcodec.runtime.backend import Captures, device_side
from dmcodec.runtime.tensorrt.engine_store import EngineRecord, EngineStore, engine_folder

from .budget import MIN_ROUNDS, Budget
from .fidelity import measure_fidelity
from .headline import headline
from .live_streams import measure_live_streams
from .measure import measure_graphs, measure_shape, measure_stream, speech_batch
from .memory import measure_memory
from .options import BenchOptions, Shape
from .peers import Peers, open_peers
from .result import (
    BenchResult,
    BundleDescription,
    Comparison,
    EngineDescription,
    Fidelity,
    Measurement,
    StreamResult,
)

# Of the time that a budget has left.
REFERENCE_SHARE, OTHER_SHARE = 0.5, 0.4


def run_bench(bundle: str | Path, options: BenchOptions, progress: Progress = no_progress) -> BenchResult:
    """Measure the bundle at a path; this takes seconds to minutes.

    Raises:
        BundleError, BackendError, ProviderError: the bundle can't run with these options.
        CheckpointError: the torch peer has other weights than the bundle.
        PretrainedModelError: a model of transformers can't be loaded, or is no codec for mono speech.
        MissingDependencyError: onnxruntime, or for a peer torch or transformers, isn't installed.
    """
    date, machine = utc_now(), describe_machine(PACKAGES)
    threads = options.threads or default_threads()
    watch = LoadWatch(threads, bursts=TORCH_COMPILE in options.peers)
    budget = Budget(options.budget_s, options.rounds)
    open_s = _open_s(bundle)
    opened = open_bundle(bundle, options.backend, options.provider, options.threads, device_id=options.device_id)
    codec = BundleCodec(opened)
    levels_to_report(codec, () if options.n_q is None else (options.n_q,), "the bundle")
    with open_peers(codec.codec.bundle, options, threads, progress) as peers:
        graphs = measure_graphs(codec, options, budget, progress)
        measurements, comparisons = _measure_shapes(codec, peers, options, budget, progress)
        fidelity = _fidelity(codec, peers, options)
        in_memory = [codec.name, *(peer.name for peer in peers.codecs if peer.name not in peers.fixed_shape)]
    if options.without_compile:
        budget.leave_out(TORCH_COMPILE, f"compiling takes long; --against {TORCH_COMPILE} asks for it")
    result = BenchResult(
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
        measurements=measurements,
        comparisons=comparisons,
        peer_loading=tuple(peers.loading),
        peer_failures=tuple(peers.failures),
        stream=_stream(codec, options, budget, progress),
        memory=measure_memory(bundle, options, in_memory, threads, progress, budget),
        live=measure_live_streams(codec, options, progress) if options.streams else None,
        engines=describe_engines(bundle) if TENSORRT in (codec.name, *options.peers) else (),
        captures=describe_captures(codec),
        peer_codecs=tuple(other.described() for other in peers.others),
        fidelity=fidelity,
        budget_s=options.budget_s,
        load=watch.stop(),
    )
    result = dataclasses.replace(result, left_out=budget.left_out)
    return dataclasses.replace(result, headline=headline(result))


def _measure_shapes(
    codec: BundleCodec, peers: Peers, options: BenchOptions, budget: Budget, progress: Progress
) -> tuple[tuple[Measurement, ...], tuple[Comparison, ...]]:
    """Measure all shapes; within a budget the reference comes first, then the others by size, as far as time allows."""
    measurements: list[Measurement] = []
    comparisons: list[Comparison] = []
    shapes, second_s = list(options.shapes), 0.0
    if budget.is_limited:
        shapes.sort(key=lambda shape: (shape != options.reference, shape.duration_s * shape.batch))
    for shape in shapes:
        is_reference = shape == options.reference
        needed_s = (1 + MIN_ROUNDS) * second_s * shape.duration_s * shape.batch
        if not is_reference and not budget.allows(str(shape), needed_s):
            continue
        chosen = peers.at(shape, options.reference)
        share = REFERENCE_SHARE if is_reference else OTHER_SHARE
        measured, compared = measure_shape(codec, chosen, shape, budget, progress, options.n_q, share)
        measurements += measured
        comparisons += compared
        if is_reference:  # fixed shapes run only here
            names = {peer.name for peer in peers.codecs} - peers.fixed_shape | {codec.name}
            second_s = sum(entry.timing.p50_s for entry in measured if entry.side in names) / shape.duration_s
    in_order = {shape: place for place, shape in enumerate(options.shapes)}
    measurements.sort(key=lambda entry: in_order[Shape(entry.duration_s, entry.batch)])
    comparisons.sort(key=lambda entry: in_order[Shape(entry.duration_s, entry.batch)])
    return tuple(measurements), tuple(comparisons)


def _fidelity(codec: BundleCodec, peers: Peers, options: BenchOptions) -> tuple[Fidelity, ...]:
    """Compare the bundle and its peers with torch in float32; empty where torch does not run."""
    if peers.reference is None:
        return ()
    waveforms = speech_batch(options.reference, codec.sample_rate)
    others = {other.name for other in peers.others if not other.same_network}
    same = [peer for peer in peers.codecs if peer.name not in others]
    return measure_fidelity(peers.reference, [codec, *same], waveforms, options.n_q)


def _stream(codec: BundleCodec, options: BenchOptions, budget: Budget, progress: Progress) -> StreamResult | None:
    if not options.stream:
        return None
    return measure_stream(codec, options, MIN_ROUNDS if budget.is_limited else options.rounds, progress)


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
