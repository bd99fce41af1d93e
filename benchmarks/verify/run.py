"""One verification of a bundle on a backend: opens codec and reference, and runs all cases and checks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from dmcodec.benchmarks.codecs.bundle import open_bundle
from dmcodec.benchmarks.codecs.torch import load_model, original_weights_known, torch_threads
from dmcodec.benchmarks.machine import utc_now
from dmcodec.benchmarks.timing import Progress, no_progress
from dmcodec.bundle import UPSAMPLER_STEPS, Bundle
from dmcodec.checkpoint_files import find_checkpoint
from dmcodec.cpus import default_threads
from dmcodec.export.parity import check_parity, num_cases
from dmcodec.export.reference import GraphReference, Reference, TorchReference
from dmcodec.files import file_sha256
from dmcodec.runtime.codec import Codec

from .checks import Checks
from .options import TORCH, VerifyOptions
from .result import BUNDLE, CHECKPOINT, GRAPHS, SEED, Check, VerifyResult, codec_run


def run_verify(bundle: str | Path, options: VerifyOptions, progress: Progress = no_progress) -> VerifyResult:
    """Run a bundle on a backend and compare it with the reference; this takes seconds to minutes.

    A value below its threshold raises no error: it is in `VerifyResult.problems`.

    Raises:
        BundleError, BackendError, ProviderError, MissingDependencyError: the codec or the reference can't run.
        CheckpointError: the checkpoint has other weights than the bundle.
        ParityError: a graph gives a result of another shape than the reference.
        AudioError: the only audio file can't be used; one of several is a problem in the result.
    """
    Bundle.open(bundle, again=True)  # all hashes, also where a check is remembered
    codec = open_bundle(
        bundle, options.backend, options.provider, options.threads, options.engine_cache, options.device_id
    )
    return verify_codec(codec, options, progress)


def verify_codec(codec: Codec, options: VerifyOptions, progress: Progress = no_progress) -> VerifyResult:
    """Do the same as `run_verify` for an open codec, on any backend."""
    date = utc_now()
    start = time.perf_counter()
    progress("loading graphs", 0, 1)
    codec.load_graphs()
    load_s = time.perf_counter() - start
    with _reference(codec, options) as (reference, thresholds_of, weights):
        cases, total = [], num_cases(codec.config)
        for case in check_parity(reference, codec.graphs.arrays, codec.graphs.state_size(UPSAMPLER_STEPS)):
            cases.append(case)
            progress("checking graphs", len(cases), total)
        checks = _run_checks(Checks(codec, reference, thresholds_of, options), progress)
        name = reference.name
    return VerifyResult(
        **vars(codec_run(codec, date, options.command)),
        reference=name,
        thresholds_of=thresholds_of,
        load_s=load_s,
        cases=tuple(cases),
        checks=checks,
        reference_weights=weights,
        checkpoint_sha256=file_sha256(find_checkpoint(options.checkpoint).weights) if options.checkpoint else None,
    )


def _run_checks(checks: Checks, progress: Progress) -> tuple[Check, ...]:
    results: list[Check] = []
    groups = checks.groups()
    for done, (name, run) in enumerate(groups):
        progress(f"checking {name}", done, len(groups))
        results += run()
    progress("checking", len(groups), len(groups))
    return tuple(results)


@contextlib.contextmanager
def _reference(codec: Codec, options: VerifyOptions) -> Iterator[tuple[Reference, str, str]]:
    """Yield the reference, the precision whose thresholds apply, and `VerifyResult.reference_weights`."""
    manifest = codec.bundle.manifest
    if options.against != TORCH:
        other = open_bundle(codec.bundle.path, "onnxruntime", "cpu", options.threads)
        name = f"onnxruntime {other.backend.version} on cpu"
        yield GraphReference(name, other.config, other.graphs.arrays), manifest.arithmetic, GRAPHS
        return
    model = load_model(codec.bundle, options.checkpoint, options.config)
    weights = BUNDLE
    if original_weights_known(manifest, options.checkpoint):
        weights = CHECKPOINT if options.checkpoint else SEED
    with torch_threads(options.threads or default_threads()):
        yield TorchReference(model), manifest.arithmetic if weights == BUNDLE else manifest.precision, weights
