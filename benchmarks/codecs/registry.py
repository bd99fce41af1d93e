"""Names of codecs in options and results, and the function that opens a codec by its name."""

from __future__ import annotations

from pathlib import Path

from dmcodec.checkpoint_files import is_bundle
from dmcodec.errors import ArgumentError, BundleNotFoundError

from .bundle import BundleCodec, open_bundle
from .checkpoint import open_checkpoint
from .interface import MeasuredCodec
from .torch import TORCH_BF16, TORCH_COMPILE, TORCH_EAGER, TORCH_INT8

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


def open_codec(path: Path, config: Path | None, threads: int | None) -> MeasuredCodec:
    """Open a bundle, or a checkpoint: a file, or a folder without a bundle's manifest.

    Args:
        path: bundle folder, checkpoint file, or folder with a checkpoint.
        config: configuration file of a checkpoint; by default that in its folder, else that of the released models.
        threads: CPU threads; by default those of the library.

    Raises:
        BundleError, CheckpointError, ConfigError: the codec can't be loaded.
        MissingDependencyError: onnxruntime, or for a checkpoint torch, isn't installed.
    """
    if not path.exists():
        raise BundleNotFoundError(f"{path}: no such bundle or checkpoint")
    if is_bundle(path):
        return BundleCodec(open_bundle(path, threads=threads))
    return open_checkpoint(path, config, threads)


def levels_to_report(codec: MeasuredCodec, requested: tuple[int, ...], title: str) -> tuple[int, ...]:
    """Return the requested numbers of levels, or all levels where none is requested.

    Raises:
        ArgumentError: the codec has fewer levels; the message has its `title`.
    """
    for n_q in requested:
        if n_q > codec.n_q:
            raise ArgumentError(f"--n-q {n_q}: {title} has {codec.n_q} levels")
    return requested or (codec.n_q,)
