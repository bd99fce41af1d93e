"""Codecs that are run: bundles through the torch-free runtime, checkpoints through torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dmcodec.audio import Waveform
from dmcodec.config import CodecConfig
from dmcodec.errors import AudioError, BundleNotFoundError, MissingDependencyError
from dmcodec.tokens import Tokens

from .bundle import BundleModel
from .interface import CodecModel

if TYPE_CHECKING:
    from dmcodec.nn import DMCodec


MAX_TORCH_S = 300.0  # torch runs a clip in one piece, some 45 MB a second at full size


def open_codec(path: Path, config: Path | None, threads: int | None) -> CodecModel:
    """A bundle where `path` is a folder, else a checkpoint with its configuration (by default the released models').

    Raises:
        BundleError, CheckpointError, ConfigError: can't be loaded.
        MissingDependencyError: onnxruntime, or for a checkpoint torch, isn't installed.
    """
    if path.is_dir():
        from dmcodec.runtime import Codec

        return BundleModel(Codec.load(path, threads=threads))
    if not path.is_file():
        raise BundleNotFoundError(f"{path}: no such bundle or checkpoint")
    return _checkpoint(path, config, threads)


class CheckpointModel:
    """A checkpoint in torch, on the CPU, in one piece."""

    def __init__(self, model: DMCodec) -> None:
        from dmcodec.nn.checkpoint import model_id

        self._model = model
        self._model_id = model_id(model)

    @property
    def config(self) -> CodecConfig:
        """The codec's configuration."""
        return self._model.config

    @property
    def description(self) -> str:
        """Kind, model and precision."""
        return f"checkpoint, model {self._model_id}, fp32, torch"

    def encode(self, waveform: Waveform, n_q: int) -> Tokens:
        import torch

        if len(waveform) > MAX_TORCH_S * self.config.sample_rate:
            raise AudioError(f"longer than {MAX_TORCH_S:g} s: export the checkpoint to a bundle, which runs in windows")
        codes = self._model.encode(torch.from_numpy(waveform)[None, None], n_q)[:, 0]
        return Tokens.from_codes(codes.numpy(), self.config, len(waveform), self._model_id)

    def decode(self, tokens: Tokens) -> Waveform:
        import torch

        codes = torch.from_numpy(tokens.codes.astype("int64"))[:, None]
        waveform: Waveform = self._model.decode(codes)[0, 0].numpy()[: tokens.num_samples]
        return waveform


def _checkpoint(path: Path, config: Path | None, threads: int | None) -> CodecModel:
    try:
        import torch

        from dmcodec.nn import DMCodec
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'{path}: a checkpoint needs {error.name}, which is not installed; run `pip install "dmcodec[export]"`'
        ) from None
    if threads:
        torch.set_num_threads(threads)
    return CheckpointModel(DMCodec.from_checkpoint(config or CodecConfig(), path))
