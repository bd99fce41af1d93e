"""Names of codecs in options and results, and the function that opens a codec by its name."""

from __future__ import annotations

import os
from pathlib import Path

from dmcodec.checkpoint_files import is_bundle
from dmcodec.cpus import set_torch_threads
from dmcodec.errors import ArgumentError, BundleNotFoundError
from dmcodec.models.names import did_you_mean

from .bundle import BundleCodec, open_bundle
from .checkpoint import CheckpointCodec, open_checkpoint
from .interface import MeasuredCodec, bitrate_bps
from .torch import TORCH_BF16, TORCH_COMPILE, TORCH_EAGER, TORCH_INT8
from .transformers import TransformersCodec, is_transformers, open_transformers

TENSORRT = "tensorrt"
HYBRID = "tensorrt-hybrid"  # its LSTMs in ONNX Runtime
ONNXRUNTIME_CPU = "onnxruntime-cpu"
TORCH_PEERS = (TORCH_EAGER, TORCH_BF16, TORCH_INT8, TORCH_COMPILE)
# Peers that run the same bundle: name, and its backend and provider.
BUNDLE_PEERS: dict[str, tuple[str, str | None]] = {
    ONNXRUNTIME_CPU: ("onnxruntime", "cpu"),
    "onnxruntime-cuda": ("onnxruntime", "cuda"),
    "onnxruntime-tensorrt": ("onnxruntime", "tensorrt"),
    "onnxruntime-nv-tensorrt-rtx": ("onnxruntime", "nv-tensorrt-rtx"),
    TENSORRT: (TENSORRT, None),
    HYBRID: (HYBRID, None),
}
# Values of `--against`, and the peers that each stands for.
PEERS = {
    "torch": TORCH_PEERS,
    **{name: (name,) for name in (*TORCH_PEERS, *BUNDLE_PEERS)},
}


def runs_on_gpu(name: str) -> bool:
    """Return whether the bundle peer of this name runs on a GPU."""
    return name != ONNXRUNTIME_CPU


def open_codec(
    path: Path, config: Path | None, threads: int | None, device: str = "cpu"
) -> BundleCodec | CheckpointCodec | TransformersCodec:
    """Open a bundle, a model of transformers, or a checkpoint: a file, or a folder without a bundle's manifest.

    Args:
        path: bundle folder, checkpoint file, folder with a checkpoint, or `transformers:` and a model's id or folder.
        config: configuration file of a checkpoint; by default that in its folder, else that of the released models.
        threads: CPU threads; by default those of the library.
        device: of torch, for a model of transformers.

    Raises:
        BundleError, CheckpointError, ConfigError, PretrainedModelError: the codec can't be loaded.
        MissingDependencyError: onnxruntime, torch or transformers, as the codec needs it, isn't installed.
    """
    if is_transformers(path):
        codec = open_transformers(path.as_posix(), device)
        set_torch_threads(threads)
        return codec
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where the name is too long
        raise BundleNotFoundError(
            f"{path}: no such bundle or checkpoint; {did_you_mean(path.name)}`dmcodec models` lists the names"
        )
    if is_bundle(path):
        return BundleCodec(open_bundle(path, threads=threads))
    return open_checkpoint(path, config, threads)


def levels_to_report(
    codec: MeasuredCodec, requested: tuple[int, ...], title: str, bandwidths: tuple[float, ...] = ()
) -> tuple[int, ...]:
    """Return the requested numbers of levels, or those of the bandwidths in kbit/s, or else all levels.

    Raises:
        ArgumentError: the codec has fewer levels, or no number of them has that bandwidth; the message has its `title`.
    """
    for n_q in requested:
        if n_q > codec.n_q:
            raise ArgumentError(f"--n-q {n_q}: {title} has {codec.n_q} levels")
    found = requested or tuple(_levels_of(codec, kbits, title) for kbits in bandwidths)
    return found or (codec.n_q,)


def _levels_of(codec: MeasuredCodec, kbits: float, title: str) -> int:
    """Return the number of levels whose bitrate is `kbits` to within 1 %."""
    each = bitrate_bps(codec, 1) / 1000
    n_q = round(kbits / each)
    if not 1 <= n_q <= codec.n_q or abs(n_q * each - kbits) > 0.01 * kbits:
        raise ArgumentError(
            f"--bandwidth {kbits:g}: {title} has 1 to {codec.n_q} levels of {each:g} kbit/s each, so at most "
            f"{codec.n_q * each:g} kbit/s; give a multiple of {each:g}"
        )
    return n_q
