"""The weights of a bundle measured in torch: eager, and compiled with torch.compile. torch is imported only on use."""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import Bundle, Manifest
from dmcodec.config import CodecConfig
from dmcodec.errors import CheckpointError, MissingDependencyError

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec

TORCH_EAGER = "torch-eager"
TORCH_BF16 = "torch-bf16"
TORCH_INT8 = "torch-int8"
TORCH_COMPILE = "torch-compile"


def original_weights_known(manifest: Manifest, checkpoint: Path | None) -> bool:
    """Return whether the weights from before the export are available: from a checkpoint or from the bundle's seed."""
    return checkpoint is not None or manifest.provenance.get("seed") is not None


def load_model(bundle: Bundle, checkpoint: Path | None, config: Path | None) -> DMCodec:
    """Load the torch model that a bundle was exported from: from its checkpoint, or from the bundle's seed.

    With neither, load the weights that the bundle holds, rounded as they are there.

    Raises:
        MissingDependencyError: torch isn't installed.
        CheckpointError: the checkpoint or the seed has other weights than the bundle.
    """
    manifest = bundle.manifest
    try:
        from dmcodec.nn import DMCodec
        from dmcodec.nn.checkpoint import model_id

        if not original_weights_known(manifest, checkpoint):
            from dmcodec.export.torch_model import torch_model

            return torch_model(manifest.config, {name: bundle.graph_path(name) for name in manifest.graphs})
    except ModuleNotFoundError as error:
        raise _missing(error) from None
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


def _missing(error: ModuleNotFoundError) -> MissingDependencyError:
    return MissingDependencyError(f'the torch peer needs {error.name}; run `pip install "dmcodec[export]"`')


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run the block with `threads` CPU threads of torch, and restore the previous number.

    Raises:
        MissingDependencyError: torch isn't installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _TorchCodec:
    """The configuration of a torch codec, and its two computations on a device."""

    def __init__(
        self, config: CodecConfig, device: str, encode: Callable[..., Any], decode: Callable[..., Any]
    ) -> None:
        self.sample_rate = config.sample_rate
        self.hop_length = config.hop_length
        self.frame_rate = config.frame_rate
        self.n_q = config.n_q
        self.codebook_size = config.codebook_size
        self._device, self._encode, self._decode = device, encode, decode

    def decode(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Decode codes [n_q, B, frames] to [B, 1, frames * hop_length]; see `MeasuredCodec.decode`."""
        return self._run(self._decode, codes)

    def _run(self, compute: Callable[..., Any], array: NDArray[Any], *arguments: Any) -> NDArray[Any]:
        """Compute from host memory to host memory; the copy back waits for the device, so a timer sees all the work."""
        import torch

        with torch.inference_mode():
            result: NDArray[Any] = compute(torch.from_numpy(array).to(self._device), *arguments).cpu().numpy()
        return result


class EagerCodec(_TorchCodec):
    """A model in eager torch, in float32 with torch's defaults (on CUDA: TF32 convolutions). A `MeasuredCodec`."""

    def __init__(self, model: DMCodec, device: str = "cpu", description: str | None = None) -> None:
        model = _on_device(model, device)
        super().__init__(model.config, device, model.encode, model.decode)
        self._latents = model.encoder
        self.name = TORCH_EAGER if device == "cpu" else f"{TORCH_EAGER}-{device}"
        self.description = description or f"torch, eager, fp32, {device}"

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode [B, 1, samples] to codes [n_q, B, frames]; see `MeasuredCodec.encode`."""
        return self._run(self._encode, waveforms, n_q)

    def latents(self, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode [B, 1, samples] to latents [B, dimension, frames]."""
        return self._run(self._latents, waveforms)


class Bf16Codec(_TorchCodec):
    """A model in eager torch under bfloat16 autocast; the RVQ computes in float32. A `MeasuredCodec`."""

    def __init__(self, model: DMCodec, device: str = "cpu") -> None:
        import torch

        model = _on_device(model, device)
        kind = torch.device(device).type

        def latents(waveforms: Any) -> Any:
            with torch.autocast(kind, dtype=torch.bfloat16):
                return model.encoder(waveforms).float()

        def encode(waveforms: Any, n_q: int | None = None) -> Any:
            return model.quantizer.encode(latents(waveforms), n_q)

        def decode(codes: Any) -> Any:
            vectors = model.quantizer.decode(codes)
            with torch.autocast(kind, dtype=torch.bfloat16):
                return model.decoder(vectors).float()

        self._latents = latents
        super().__init__(model.config, device, encode, decode)
        self.name = TORCH_BF16 if device == "cpu" else f"{TORCH_BF16}-{device}"
        self.description = f"torch, eager, bfloat16 autocast, {device}"

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode [B, 1, samples] to codes [n_q, B, frames]; see `MeasuredCodec.encode`."""
        return self._run(self._encode, waveforms, n_q)

    def latents(self, waveforms: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode [B, 1, samples] to latents [B, dimension, frames]."""
        return self._run(self._latents, waveforms)


class Int8Codec(EagerCodec):
    """A copy of a model whose LSTMs torch quantizes dynamically to int8, on the CPU. A `MeasuredCodec`.

    Raises:
        MissingDependencyError: this torch can't quantize.
    """

    def __init__(self, model: DMCodec, device: str = "cpu") -> None:
        if device != "cpu":
            raise MissingDependencyError("torch's dynamic int8 LSTMs run on the CPU only; leave torch-int8 out")
        super().__init__(_quantized(model), description="torch, eager, int8 LSTMs (quantize_dynamic), cpu")
        self.name = TORCH_INT8


def _quantized(model: DMCodec) -> DMCodec:
    import torch

    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError:
        raise MissingDependencyError(
            f"torch {torch.__version__} has no torch.ao.quantization; torch-int8 needs torch 2.13 or older"
        ) from None
    if torch.backends.quantized.engine == "none":
        raise MissingDependencyError(
            f"torch {torch.__version__} has no int8 kernels for this CPU; leave torch-int8 out"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization announces that it moves to torchao
        quantized: DMCodec = quantize_dynamic(copy.deepcopy(model), {torch.nn.LSTM}, dtype=torch.qint8)
    return quantized


class CompiledCodec(_TorchCodec):
    """A model through torch.compile, for one shape; any other shape compiles again (dynamic=False). A `MeasuredCodec`.

    On the CPU it runs in float32. On CUDA encoder and decoder run in fp16, the RVQ in float32, as in an fp16 bundle.
    """

    def __init__(self, model: DMCodec, device: str = "cpu") -> None:
        import torch

        half = device != "cpu"
        model = _on_device(model, device)
        if half:
            model.encoder.half()
            model.decoder.half()
        dtype = torch.float16 if half else torch.float32

        def encode(waveforms: Any) -> Any:
            return model.quantizer.encode(model.encoder(waveforms.to(dtype)).float())

        def decode(codes: Any) -> Any:
            return model.decoder(model.quantizer.decode(codes).to(dtype)).float()

        compiled = (torch.compile(encode, dynamic=False), torch.compile(decode, dynamic=False))
        super().__init__(model.config, device, *compiled)
        self.name = f"{TORCH_COMPILE}-{device}-fp16" if half else TORCH_COMPILE
        self.description = f"torch.compile, {'fp16' if half else 'fp32'}, {device}"

    def compile(self, waveforms: NDArray[np.float32]) -> float:
        """Compile for the shape of `waveforms` by running it, and return the seconds that this took."""
        start = time.perf_counter()
        self.decode(self.encode(waveforms))
        return time.perf_counter() - start

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode [B, 1, samples] to codes [n_q, B, frames]; see `MeasuredCodec.encode`."""
        return self._run(self._encode, waveforms)[:n_q]  # all levels are computed: n_q would compile again


def _on_device(model: DMCodec, device: str) -> DMCodec:
    """Return the model itself for the CPU, a copy on another device.

    Raises:
        MissingDependencyError: torch finds no GPU.
    """
    import torch

    if device == "cpu":
        return model
    if not torch.cuda.is_available():
        raise MissingDependencyError(
            f"torch {torch.__version__} sees no CUDA GPU; install a CUDA build of torch, and check the driver"
        )
    return copy.deepcopy(model).to(device)
