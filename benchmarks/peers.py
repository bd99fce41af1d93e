"""Makes the peers that were asked for; one that can't run here becomes a failure with its reason."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

from dmcodec.benchmarks.options import TORCH_COMPILE, TORCH_EAGER, BenchOptions, Shape
from dmcodec.benchmarks.results import PeerFailure, PeerLoading
from dmcodec.benchmarks.sides import Side, sample_batch
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Manifest


@dataclasses.dataclass(frozen=True)
class Peers:
    """The peers that run, what loading them took, and those that can't run. `fixed` ones run the reference only."""

    sides: tuple[Side, ...] = ()
    fixed: frozenset[str] = frozenset()
    loading: tuple[PeerLoading, ...] = ()
    failures: tuple[PeerFailure, ...] = ()

    def at(self, shape: Shape, reference: Shape) -> tuple[Side, ...]:
        """The peers that run at `shape`."""
        return tuple(side for side in self.sides if shape == reference or side.name not in self.fixed)


@contextlib.contextmanager
def open_peers(manifest: Manifest, options: BenchOptions, threads: int, progress: Progress) -> Iterator[Peers]:
    """Yields the peers of `options`, on `threads` CPU threads.

    Raises:
        CheckpointError: the weights aren't those of the bundle, or nothing says where they are.
        MissingDependencyError: torch isn't installed.
    """
    if not options.peers:
        yield Peers()
        return
    from dmcodec.benchmarks.torch_peer import torch_threads

    progress("loading torch", 0, 1)
    with torch_threads(threads):
        yield _torch_peers(manifest, options, progress)


def _torch_peers(manifest: Manifest, options: BenchOptions, progress: Progress) -> Peers:
    from dmcodec.benchmarks.torch_peer import CompiledSide, EagerSide, load_model

    start = time.perf_counter()
    model = load_model(manifest, options.checkpoint, options.config)
    load_s = time.perf_counter() - start
    progress("loading torch", 1, 1)
    sides: list[Side] = []
    loading: list[PeerLoading] = []
    failures: list[PeerFailure] = []
    if TORCH_EAGER in options.peers:
        sides.append(EagerSide(model))
        loading.append(PeerLoading(TORCH_EAGER, load_s, None))
    if TORCH_COMPILE in options.peers:
        progress("compiling", 0, 1)
        try:
            compiled = CompiledSide(model)
            compile_s = compiled.compile(sample_batch(manifest.config, options.reference_s, 1))
        except Exception as error:  # noqa: BLE001 - no compiler, no support: torch raises all kinds of errors
            failures.append(PeerFailure(TORCH_COMPILE, _reason(error)))
        else:
            sides.append(compiled)
            loading.append(PeerLoading(TORCH_COMPILE, load_s, compile_s))
        progress("compiling", 1, 1)
    return Peers(tuple(sides), frozenset({TORCH_COMPILE}), tuple(loading), tuple(failures))


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
