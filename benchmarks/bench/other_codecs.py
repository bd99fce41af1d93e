"""Codecs that run beside the bundle and need not be its network: other bundles, checkpoints, models of transformers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.codecs.bundle import BundleCodec
from dmcodec.benchmarks.codecs.interface import MeasuredCodec, bitrate_bps
from dmcodec.benchmarks.codecs.named import Named
from dmcodec.benchmarks.codecs.registry import open_codec
from dmcodec.benchmarks.codecs.transformers import (
    TransformersCodec,
    import_transformers,
    is_transformers,
    result_name,
    weights_file,
)
from dmcodec.bundle import Bundle, Manifest
from dmcodec.checkpoint_files import is_bundle
from dmcodec.errors import ArgumentError, CheckpointError, ConfigError
from dmcodec.files import file_sha256

from .result import PeerCodec


class OtherCodec:
    """A codec at a number of levels, under the name that it has in results. Implements `MeasuredCodec`.

    Attributes:
        same_network: whether it has the weights of the bundle, so that codes and waveforms can be compared.
    """

    def __init__(self, codec: MeasuredCodec, name: str, n_q: int, same_network: bool) -> None:
        self.name, self.n_q, self.same_network = name, n_q, same_network
        self.description = codec.description
        self.sample_rate, self.hop_length = codec.sample_rate, codec.hop_length
        self.frame_rate, self.codebook_size = codec.frame_rate, codec.codebook_size
        self._codec = codec

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode [B, 1, samples] to codes [n_q, B, frames]; see `MeasuredCodec.encode`."""
        return self._codec.encode(waveforms, n_q or self.n_q)

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode codes [n_q, B, frames] to [B, 1, frames * hop_length]; see `MeasuredCodec.decode`."""
        return self._codec.decode(codes)

    def described(self) -> PeerCodec:
        """Return what the results tell of it."""
        bitrate = bitrate_bps(self, self.n_q)
        return PeerCodec(
            self.name, self.description, self.sample_rate, self.frame_rate, self.n_q, bitrate, self.same_network
        )


def codec_name(entry: Named) -> str:
    """Return the name in results."""
    return entry.name or (result_name(entry.path) if is_transformers(entry.path) else entry.title)


def needs_torch(path: Path) -> bool:
    """Return whether the codec at a path runs in torch."""
    return is_transformers(path) or not is_bundle(path)


def open_other_codec(
    entry: Named, bundle: Bundle, n_q: int | None, threads: int, device: str
) -> tuple[OtherCodec, float]:
    """Open a codec, and return it with the seconds that this took.

    Args:
        entry: its path and its name.
        bundle: that is measured.
        n_q: number of levels; by default as many as the bundle has, or all where it has fewer.
        threads: CPU threads.
        device: of torch, for a model of transformers; other codecs run on the CPU.

    Raises:
        ArgumentError: it has fewer than `n_q` levels.
        BundleError, CheckpointError, ConfigError, PretrainedModelError: it can't be loaded.
        MissingDependencyError: a package that it needs isn't installed.
    """
    if is_transformers(entry.path):
        import_transformers()  # before the time is taken
    start = time.perf_counter()
    codec = open_codec(entry.path, None, threads, device)
    load_s = time.perf_counter() - start
    name = codec_name(entry)
    if n_q is not None and n_q > codec.n_q:
        raise ArgumentError(f"--n-q {n_q}: {name} has {codec.n_q} levels")
    levels = min(n_q or bundle.manifest.config.n_q, codec.n_q)
    return OtherCodec(codec, name, levels, _is_same_network(codec, entry.path, bundle.manifest)), load_s


def _is_same_network(codec: MeasuredCodec, path: Path, manifest: Manifest) -> bool:
    """Return whether a codec has the weights that the bundle was exported from."""
    config = manifest.config
    if (codec.sample_rate, codec.hop_length, codec.codebook_size) != (
        config.sample_rate,
        config.hop_length,
        config.codebook_size,
    ):
        return False
    if isinstance(codec, BundleCodec):
        return codec.codec.bundle.manifest.model_id == manifest.model_id
    if not isinstance(codec, TransformersCodec):
        return _model_id(path) == manifest.model_id
    weights = weights_file(codec.source)
    if weights is None:
        return False
    exported = manifest.provenance.get("checkpoint_sha256")
    return (exported is not None and file_sha256(weights) == exported) or _model_id(weights.parent) == manifest.model_id


def _model_id(checkpoint: Path) -> str | None:
    """Return what identifies the weights of a checkpoint; None where it is none of this family."""
    from dmcodec.nn import DMCodec
    from dmcodec.nn.checkpoint import model_id

    try:
        return model_id(DMCodec.from_checkpoint(None, checkpoint))
    except (CheckpointError, ConfigError):
        return None
