"""The torch column: the bundle's weights in eager torch and in torch.compile. Imports torch only on use."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import Bundle, Manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointError, MissingDependencyError

from .interface import TORCH_COMPILE, TORCH_EAGER

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec


def knows_weights(manifest: Manifest, checkpoint: Path | None) -> bool:
    """Whether the weights that a bundle was exported from can be had, and not only those that it holds."""
    return checkpoint is not None or manifest.provenance.get("seed") is not None


def load_model(bundle: Bundle, checkpoint: Path | None, config: Path | None) -> DMCodec:
    """The torch model that the bundle was exported from: of the checkpoint, or of the bundle's seed.

    Where neither is known, it is made of the weights that the bundle holds, as rounded as they are there.

    Raises:
        MissingDependencyError: torch isn't installed.
        CheckpointError: the checkpoint's or the seed's weights are others than the bundle's.
    """
    manifest = bundle.manifest
    try:
        from dmcodec.nn import DMCodec
        from dmcodec.nn.checkpoint import model_id

        if not knows_weights(manifest, checkpoint):
            from dmcodec.export.torch_model import torch_model

            return torch_model(manifest.config, {name: bundle.graph_path(name) for name in manifest.graphs})
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'the torch peer needs {error.name}; run `pip install "dmcodec[export]"`'
        ) from None
    if checkpoint is not None:
        codec_config = manifest.config if config is None else CodecConfig.from_json(config)
        model, source = DMCodec.from_checkpoint(codec_config, checkpoint), str(checkpoint)
    else:
        seed = manifest.provenance["seed"]
        model, source = DMCodec.seeded(manifest.config, seed), f"seed {seed} on this version of torch"
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
    """The model as it stands, in eager torch and float32, with torch's own defaults (on CUDA: TF32 convolutions)."""

    def __init__(self, model: DMCodec, device: str = "cpu") -> None:
        self._model, self._device = _on_device(model, device), device
        self.name = TORCH_EAGER if device == "cpu" else f"{TORCH_EAGER}-{device}"

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `dmcodec.benchmarks.codecs.interface.Side`."""
        return _computed(self._model.encode, waveforms, self._device)

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `dmcodec.benchmarks.codecs.interface.Side`."""
        return _computed(self._model.decode, codes, self._device)


class CompiledSide:
    """The same model through torch.compile, for one shape: any other shape compiles again (dynamic=False).

    On the CPU in float32; on CUDA the encoder and the decoder are in fp16, the RVQ in float32, as in an fp16 bundle.
    """

    def __init__(self, model: DMCodec, device: str = "cpu") -> None:
        import torch

        half = device != "cpu"
        self.name = f"{TORCH_COMPILE}-{device}-fp16" if half else TORCH_COMPILE
        model = _on_device(model, device)
        if half:
            model.encoder.half()
            model.decoder.half()
        dtype = torch.float16 if half else torch.float32

        def encode(waveforms: Any) -> Any:
            return model.quantizer.encode(model.encoder(waveforms.to(dtype)).float())

        def decode(codes: Any) -> Any:
            return model.decoder(model.quantizer.decode(codes).to(dtype)).float()

        self._device = device
        self._encode = torch.compile(encode, dynamic=False)
        self._decode = torch.compile(decode, dynamic=False)

    def compile(self, waveforms: NDArray[np.float32]) -> float:
        """Compiles for this shape by running it; returns the seconds that this took."""
        start = time.perf_counter()
        self.decode(self.encode(waveforms))
        return time.perf_counter() - start

    def encode(self, waveforms: NDArray[np.float32]) -> NDArray[np.int64]:
        """See `dmcodec.benchmarks.codecs.interface.Side`."""
        return _computed(self._encode, waveforms, self._device)

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `dmcodec.benchmarks.codecs.interface.Side`."""
        return _computed(self._decode, codes, self._device)


def _on_device(model: DMCodec, device: str) -> DMCodec:
    """The model itself on the CPU, a copy of it elsewhere; a MissingDependencyError where torch sees no such device."""
    import torch

    if device == "cpu":
        return model
    if not torch.cuda.is_available():
        raise MissingDependencyError(
            f"torch {torch.__version__} sees no CUDA GPU; install a CUDA build of torch, and check the driver"
        )
    return copy.deepcopy(model).to(device)


def _computed(run: Callable[[Any], Any], array: NDArray[Any], device: str) -> NDArray[Any]:
    """Host memory to host memory: copying the result back waits for the device, so a timer sees all of the work."""
    import torch

    with torch.inference_mode():
        result: NDArray[Any] = run(torch.from_numpy(array).to(device)).cpu().numpy()
    return result
