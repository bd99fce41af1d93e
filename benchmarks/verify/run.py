"""One whole verification: opens both sides, runs every case and check, and tells what came out."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from pathlib import Path

from dmcodec.benchmarks.codecs.bundle import open_codec
from dmcodec.benchmarks.machine import PACKAGES, describe_machine
from dmcodec.benchmarks.timing import Progress
from dmcodec.export.parity import check_parity, num_cases
from dmcodec.export.reference import GraphReference, Reference
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.onnxruntime_backend import usable_cpus

from .checks import Checks
from .options import TORCH, VerifyOptions
from .result import Check, VerifyResult


def run_verify(bundle: str | Path, options: VerifyOptions, progress: Progress | None = None) -> VerifyResult:
    """Runs a bundle on a backend and holds everything against the reference; takes seconds to minutes.

    A figure below its threshold raises nothing: it is in `VerifyResult.problems`.

    Raises:
        BundleError, BackendError, ProviderError, MissingDependencyError: one of the sides can't run.
        CheckpointError: torch's weights aren't those of the bundle.
        ParityError: a graph gives a result of another shape.
        AudioError: an audio file can't be used.
    """
    codec = open_codec(bundle, options.backend, options.provider, options.threads, options.engine_cache)
    return verify_codec(codec, options, progress)


def verify_codec(codec: Codec, options: VerifyOptions, progress: Progress | None = None) -> VerifyResult:
    """`run_verify` for a codec that is open already, on whatever backend."""
    report = progress or (lambda _stage, _done, _total: None)
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    report("loading graphs", 0, 1)
    codec.load_graphs()
    load_s = time.perf_counter() - start
    with _reference(codec, options) as (reference, thresholds_of):
        cases, total = [], num_cases(codec.config)
        for case in check_parity(reference, codec.graphs.arrays):
            cases.append(case)
            report("checking graphs", len(cases), total)
        checks = _run_checks(Checks(codec, reference, thresholds_of, options), report)
        name = reference.name
    manifest, backend = codec.bundle.manifest, codec.backend
    return VerifyResult(
        date=date,
        command=options.command,
        machine=describe_machine(PACKAGES),
        bundle=str(codec.bundle.path),
        model_id=manifest.model_id,
        precision=manifest.precision,
        backend=f"{backend.name} {backend.version}",
        provider=backend.provider,
        reference=name,
        thresholds_of=thresholds_of,
        load_s=load_s,
        cases=tuple(cases),
        checks=checks,
    )


def _run_checks(checks: Checks, report: Progress) -> tuple[Check, ...]:
    found: list[Check] = []
    parts = checks.all()
    for done, (name, run) in enumerate(parts):
        report(f"checking {name}", done, len(parts))
        found += run()
    report("checking", len(parts), len(parts))
    return tuple(found)


@contextlib.contextmanager
def _reference(codec: Codec, options: VerifyOptions) -> Iterator[tuple[Reference, str]]:
    """The reference, and the precision whose thresholds count."""
    manifest = codec.bundle.manifest
    if options.against != TORCH:
        other = open_codec(codec.bundle.path, "onnxruntime", "cpu", options.threads)
        name = f"onnxruntime {other.backend.version} on cpu"
        yield GraphReference(name, other.config, other.graphs.arrays), manifest.arithmetic
        return
    # Both import torch.
    from dmcodec.benchmarks.codecs.torch import knows_weights, load_model, torch_threads
    from dmcodec.export.reference import TorchReference

    model = load_model(codec.bundle, options.checkpoint, options.config)
    known = knows_weights(manifest, options.checkpoint)
    with torch_threads(options.threads or usable_cpus()):
        yield TorchReference(model), manifest.precision if known else manifest.arithmetic
