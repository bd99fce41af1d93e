"""The torch column: the bundle's weights in eager torch and in torch.compile. Imports torch only on use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.benchmarks.options import TORCH_COMPILE, TORCH_EAGER
from dmcodec.bundle import Manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointError, MissingDependencyError

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec


def load_model(manifest: Manifest, checkpoint: Path | None, config: Path | None) -> DMCodec:
    """The torch model whose weights the bundle holds: from the checkpoint, or from the bundle's seed.

    Raises:
        MissingDependencyError: torch isn't installed.
        CheckpointError: no checkpoint was named and the bundle has no seed, or the weights are others.
    """
    try:
        from dmcodec.nn import DMCodec
        from dmcodec.nn.checkpoint import model_id
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"the torch peer needs {error.name}; run `pip install dmcodec[export]`") from None
    seed = manifest.provenance.get("seed")
    if checkpoint is not None:
        codec_config = manifest.config if config is None else CodecConfig.from_json(config)
        model, source = DMCodec.from_checkpoint(codec_config, checkpoint), str(checkpoint)
    elif seed is not None:
        model, source = DMCodec.seeded(manifest.config, seed), f"seed {seed} on this version of torch"
    else:
        raise CheckpointError(
            f"the torch peer needs the weights that the bundle was exported from "
            f"({manifest.provenance.get('checkpoint') or 'its manifest names no file'}); name them with --checkpoint"
        )
    if (found := model_id(model)) != manifest.model_id:
        raise CheckpointError(
            f"{source}: holds model {found}, the bundle holds model {manifest.model_id}; "
            "name the checkpoint that the bundle was exported from with --checkpoint"
        )
    return model


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Runs torch with `threads` CPU threads, then sets back what was there."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class EagerSide:
    """The model as it stands, in eager torch."""

    name = TORCH_EAGER

    def __init__(self, model: DMCodec) -> None:
        self._model = model

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `dmcodec.benchmarks.sides.Side`."""
        import torch

        codes: NDArray[np.int64] = self._model.encode(torch.from_numpy(waveforms)).numpy()
        return codes

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `dmcodec.benchmarks.sides.Side`."""
        import torch

        waveforms: NDArray[np.float32] = self._model.decode(torch.from_numpy(codes)).numpy()
        return waveforms


class CompiledSide:
    """The same model through torch.compile, for one shape: any other shape compiles again (dynamic=False)."""

    name = TORCH_COMPILE

    def __init__(self, model: DMCodec) -> None:
        import torch

        def encode(waveforms: Any) -> Any:
            return model.quantizer.encode(model.encoder(waveforms))

        def decode(codes: Any) -> Any:
            return model.decoder(model.quantizer.decode(codes))

        self._encode = torch.compile(encode, dynamic=False)
        self._decode = torch.compile(decode, dynamic=False)

    def compile(self, waveforms: NDArray[np.float32]) -> float:
        """Compiles for this shape by running it; returns the seconds that this took."""
        start = time.perf_counter()
        self.decode(self.encode(waveforms))
        return time.perf_counter() - start

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `dmcodec.benchmarks.sides.Side`."""
        import torch

        with torch.inference_mode():
            codes: NDArray[np.int64] = self._encode(torch.from_numpy(waveforms)).numpy()
        return codes

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `dmcodec.benchmarks.sides.Side`."""
        import torch

        with torch.inference_mode():
            waveforms: NDArray[np.float32] = self._decode(torch.from_numpy(codes)).numpy()
        return waveforms
