"""A checkpoint file measured in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dmcodec.cpus import set_torch_threads
from dmcodec.errors import AudioError, MissingDependencyError

from .torch import EagerCodec

MAX_DURATION_S = 300.0  # torch runs a clip in one piece: about 45 MB a second at full size


class CheckpointCodec(EagerCodec):
    """A checkpoint in eager torch, on the CPU. It encodes clips of at most MAX_DURATION_S seconds."""

    def encode(self, waveforms: NDArray[np.float32], n_q: int | None = None) -> NDArray[np.int64]:
        """Encode [B, 1, samples] to codes [n_q, B, frames].

        Raises:
            AudioError: the waveforms are longer than MAX_DURATION_S.
        """
        if waveforms.shape[-1] > MAX_DURATION_S * self.sample_rate:
            raise AudioError(
                f"longer than {MAX_DURATION_S:g} s: export the checkpoint to a bundle, which runs in windows"
            )
        return super().encode(waveforms, n_q)


def open_checkpoint(path: Path, config: Path | None, threads: int | None) -> CheckpointCodec:
    """Load a checkpoint with its configuration (by default that in its folder, else that of the released models).

    Raises:
        CheckpointError, ConfigError: the checkpoint or its configuration can't be loaded.
        MissingDependencyError: torch isn't installed.
    """
    try:
        import torch  # noqa: F401

        from dmcodec.nn import DMCodec
        from dmcodec.nn.checkpoint import model_id
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'{path}: a checkpoint needs {error.name}, which is not installed; run `pip install "dmcodec[export]"`'
        ) from None
    set_torch_threads(threads)
    model = DMCodec.from_checkpoint(config, path)
    return CheckpointCodec(model, description=f"checkpoint, model {model_id(model)}, fp32, torch")
