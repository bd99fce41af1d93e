"""Opening the peers that the options name. A peer that can't run here becomes a failure with its reason."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dmcodec.benchmarks.codecs.bundle import DECODE_GRAPHS, ENCODE_GRAPHS, BundleCodec, open_bundle
from dmcodec.benchmarks.codecs.interface import MeasuredCodec
from dmcodec.benchmarks.codecs.named import Named
from dmcodec.benchmarks.codecs.registry import BUNDLE_PEERS, runs_on_gpu
from dmcodec.benchmarks.codecs.torch import (
    TORCH_BF16,
    TORCH_COMPILE,
    TORCH_EAGER,
    TORCH_INT8,
    Bf16Codec,
    CompiledCodec,
    EagerCodec,
    Int8Codec,
    load_model,
    torch_threads,
)
from dmcodec.benchmarks.timing import Progress
from dmcodec.bundle import Bundle
from dmcodec.errors import ArgumentError, DmcodecError, first_line

from .measure import speech_batch
from .options import BenchOptions, Shape
from .other_codecs import OtherCodec, codec_name, needs_torch, open_other_codec
from .result import PeerFailure, PeerLoading

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec

# Peers of eager torch, by name.
EAGER_KINDS: Mapping[str, type[EagerCodec | Bf16Codec]] = {
    TORCH_EAGER: EagerCodec, TORCH_BF16: Bf16Codec, TORCH_INT8: Int8Codec
}  # fmt: skip


@dataclasses.dataclass
class Peers:
    """The open peers.

    Attributes:
        codecs: the peers that run.
        others: those of them that are named by their paths.
        fixed_shape: names of those that run only the reference shape.
        loading: how long loading each took.
        failures: the peers that can't run.
        reference: the same network in float32 in torch on the CPU, whether it is among `codecs` or not; None where
            torch was not asked for.
    """

    codecs: list[MeasuredCodec] = dataclasses.field(default_factory=list)
    others: list[OtherCodec] = dataclasses.field(default_factory=list)
    fixed_shape: set[str] = dataclasses.field(default_factory=set)
    loading: list[PeerLoading] = dataclasses.field(default_factory=list)
    failures: list[PeerFailure] = dataclasses.field(default_factory=list)
    reference: MeasuredCodec | None = None

    def at(self, shape: Shape, reference: Shape) -> tuple[MeasuredCodec, ...]:
        """Return the peers that run at `shape`."""
        return tuple(codec for codec in self.codecs if shape == reference or codec.name not in self.fixed_shape)


@contextlib.contextmanager
def open_peers(bundle: Bundle, options: BenchOptions, threads: int, progress: Progress) -> Iterator[Peers]:
    """Yield the peers of `options`, on `threads` CPU threads.

    Raises:
        CheckpointError: the checkpoint has other weights than the bundle.
        MissingDependencyError: torch isn't installed.
    """
    peers = Peers()
    for name in options.peers:
        if name in BUNDLE_PEERS:
            progress(f"loading {name}", 0, 1)
            _add_bundle_peer(peers, name, bundle.path, threads, options.device_id if runs_on_gpu(name) else None)
            progress(f"loading {name}", 1, 1)
    others = options.other_codecs
    if not options.torch_peers and not any(needs_torch(entry.path) for entry in others):
        for entry in others:
            _add_other_codec(peers, entry, bundle, options, threads, progress)
        yield peers
        return
    with torch_threads(threads):  # imports torch, so that the time to load a model doesn't contain that
        for entry in others:
            _add_other_codec(peers, entry, bundle, options, threads, progress)
        if options.torch_peers:
            progress("loading torch", 0, 1)
            start = time.perf_counter()
            model = load_model(bundle, options.checkpoint, options.config)
            load_s = time.perf_counter() - start
            progress("loading torch", 1, 1)
            _add_torch_peers(peers, model, load_s, options, progress)
        yield peers


def _add_bundle_peer(peers: Peers, name: str, bundle: Path, threads: int, device_id: int | None) -> None:
    start = time.perf_counter()
    try:
        codec = open_bundle(bundle, *BUNDLE_PEERS[name], threads, device_id=device_id)
        codec.load_graphs(*ENCODE_GRAPHS, *DECODE_GRAPHS)
    except DmcodecError as error:
        peers.failures.append(PeerFailure(name, str(error)))
    else:
        peers.codecs.append(BundleCodec(codec))
        peers.loading.append(PeerLoading(name, time.perf_counter() - start, None))


def _add_other_codec(
    peers: Peers, entry: Named, bundle: Bundle, options: BenchOptions, threads: int, progress: Progress
) -> None:
    name = codec_name(entry)
    if name in (options.codec_name, *(codec.name for codec in peers.codecs), *options.peers):
        raise ArgumentError(f"two codecs would be called {name!r}; name them with --codec NAME=PATH")
    progress(f"loading {name}", 0, 1)
    other, load_s = open_other_codec(entry, bundle, options.n_q, threads, _torch_device(options))
    progress(f"loading {name}", 1, 1)
    peers.others.append(other)
    peers.codecs.append(other)
    peers.loading.append(PeerLoading(name, load_s, None))


def _torch_device(options: BenchOptions) -> str:
    return f"cuda:{options.device_id or 0}" if options.on_gpu else "cpu"


def _add_torch_peers(peers: Peers, model: DMCodec, load_s: float, options: BenchOptions, progress: Progress) -> None:
    device = _torch_device(options)
    peers.reference = EagerCodec(model)
    for name, kind in ((name, kind) for name, kind in EAGER_KINDS.items() if name in options.peers):
        try:
            codec = kind(model, device)
        except Exception as error:  # noqa: BLE001 - no GPU, or one that this torch doesn't support: any kind of error
            peers.failures.append(PeerFailure(name, _reason(error)))
        else:
            peers.codecs.append(codec)
            peers.loading.append(PeerLoading(codec.name, load_s, None))
    if TORCH_COMPILE in options.peers:
        progress("compiling", 0, 1)
        try:
            compiled = CompiledCodec(model, device)
            compile_s = compiled.compile(speech_batch(options.reference, compiled.sample_rate))
        except Exception as error:  # noqa: BLE001 - no compiler, no support: torch raises any kind of error
            peers.failures.append(PeerFailure(TORCH_COMPILE, _reason(error)))
        else:
            peers.codecs.append(compiled)
            peers.fixed_shape.add(compiled.name)
            peers.loading.append(PeerLoading(compiled.name, load_s, compile_s))
        progress("compiling", 1, 1)


def _reason(error: Exception) -> str:
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"
