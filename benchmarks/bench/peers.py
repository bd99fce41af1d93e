"""Makes the peers that were asked for; one that can't run here becomes a failure with its reason."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dmcodec.benchmarks.codecs.bundle import DECODE_GRAPHS, ENCODE_GRAPHS, BundleSide, open_codec, sample_batch
from dmcodec.benchmarks.codecs.interface import BUNDLE_PEERS, TORCH_COMPILE, TORCH_EAGER, Side
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Bundle
from dmcodec.errors import DmcodecError

from .options import BenchOptions, Shape
from .result import PeerFailure, PeerLoading

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec


@dataclasses.dataclass
class Peers:
    """The peers that run, what loading them took, and those that can't run. `fixed` ones run the reference only."""

    sides: list[Side] = dataclasses.field(default_factory=list)
    fixed: set[str] = dataclasses.field(default_factory=set)
    loading: list[PeerLoading] = dataclasses.field(default_factory=list)
    failures: list[PeerFailure] = dataclasses.field(default_factory=list)

    def at(self, shape: Shape, reference: Shape) -> tuple[Side, ...]:
        """The peers that run at `shape`."""
        return tuple(side for side in self.sides if shape == reference or side.name not in self.fixed)


@contextlib.contextmanager
def open_peers(bundle: Bundle, options: BenchOptions, threads: int, progress: Progress) -> Iterator[Peers]:
    """Yields the peers of `options`, on `threads` CPU threads.

    Raises:
        CheckpointError: the checkpoint's weights aren't those of the bundle.
        MissingDependencyError: torch isn't installed.
    """
    peers = Peers()
    for name in options.peers:
        if name in BUNDLE_PEERS:
            progress(f"loading {name}", 0, 1)
            _add_bundle_peer(peers, name, bundle.path, threads)
            progress(f"loading {name}", 1, 1)
    if not options.torch_peers:
        yield peers
        return
    from dmcodec.benchmarks.codecs.torch import load_model, torch_threads

    progress("loading torch", 0, 1)
    with torch_threads(threads):
        start = time.perf_counter()
        model = load_model(bundle, options.checkpoint, options.config)
        load_s = time.perf_counter() - start
        progress("loading torch", 1, 1)
        _add_torch_peers(peers, model, load_s, options, progress)
        yield peers


def _add_bundle_peer(peers: Peers, name: str, bundle: Path, threads: int) -> None:
    start = time.perf_counter()
    try:
        codec = open_codec(bundle, *BUNDLE_PEERS[name], threads)
        codec.load_graphs(*ENCODE_GRAPHS, *DECODE_GRAPHS)
    except DmcodecError as error:
        peers.failures.append(PeerFailure(name, str(error)))
    else:
        peers.sides.append(BundleSide(codec))
        peers.loading.append(PeerLoading(name, time.perf_counter() - start, None))


def _add_torch_peers(peers: Peers, model: DMCodec, load_s: float, options: BenchOptions, progress: Progress) -> None:
    from dmcodec.benchmarks.codecs.torch import CompiledSide, EagerSide

    device = "cuda" if options.on_gpu else "cpu"
    if TORCH_EAGER in options.peers:
        try:
            eager = EagerSide(model, device)
        except Exception as error:  # noqa: BLE001 - no GPU, or none that this torch knows: all kinds of errors
            peers.failures.append(PeerFailure(TORCH_EAGER, _reason(error)))
        else:
            peers.sides.append(eager)
            peers.loading.append(PeerLoading(eager.name, load_s, None))
    if TORCH_COMPILE in options.peers:
        progress("compiling", 0, 1)
        try:
            compiled = CompiledSide(model, device)
            compile_s = compiled.compile(sample_batch(model.config, options.reference_s, 1))
        except Exception as error:  # noqa: BLE001 - no compiler, no support: torch raises all kinds of errors
            peers.failures.append(PeerFailure(TORCH_COMPILE, _reason(error)))
        else:
            peers.sides.append(compiled)
            peers.fixed.add(compiled.name)
            peers.loading.append(PeerLoading(compiled.name, load_s, compile_s))
        progress("compiling", 1, 1)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
