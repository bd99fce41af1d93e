"""UTMOS: naturalness of speech, predicted by a TorchScript file that the user names."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dmcodec.audio import Waveform
from dmcodec.errors import InputNotFoundError, MetricError, PretrainedModelError
from dmcodec.extras import require
from dmcodec.files import file_sha256
from dmcodec.pretrained.loading import package_version

from .signal_metrics import SAMPLE_RATE

MIN_S = 0.1
WANTED = "take utmos_scripted.pt of UTMOS-PyTorch, or another TorchScript module from (1, 1, samples) to one score"


class MosModel(Protocol):
    """Predicts the mean opinion score of one clip. `description` names the model and its version."""

    @property
    def description(self) -> str: ...

    def score(self, waveform: Waveform) -> float:
        """Return the score of (samples,) at 16 kHz; MetricError where the clip is too short."""


class UtmosModel:
    """UTMOS strong learner (Saeki et al., arXiv 2204.02152) as TorchScript, in float32 on the CPU.

    The module maps (1, 1, samples) float32 at 16 kHz to one score, as `utmos_scripted.pt` of UTMOS-PyTorch does.
    """

    def __init__(self, path: Path) -> None:
        """Load the module, and run it once.

        Raises:
            InputNotFoundError: no such file.
            PretrainedModelError: not a TorchScript file, or its result is not one finite score.
            MissingDependencyError: torch isn't installed.
        """
        require("utmos", "evaluate", "torch")
        import torch

        if not path.is_file():
            raise InputNotFoundError(f"{path}: no such file of UTMOS; {WANTED}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, since 2.11
                self._model: Any = torch.jit.load(str(path), map_location="cpu").eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise PretrainedModelError(f"{path}: not a TorchScript file; {WANTED}") from error
        self.description = f"TorchScript {path.name}, sha256 {file_sha256(path)[:12]}, torch {package_version('torch')}"
        self._path = path
        self._run(np.sin(np.arange(SAMPLE_RATE) / 20))

    def score(self, waveform: Waveform) -> float:
        """Return the score of (samples,) at 16 kHz.

        Raises:
            MetricError: shorter than 0.1 s, silent, or the module fails.
        """
        if len(waveform) < MIN_S * SAMPLE_RATE:
            raise MetricError(f"shorter than {MIN_S:g} s, too short for UTMOS")
        if not np.any(waveform):
            raise MetricError("the clip is silent: UTMOS has no meaning")
        try:
            return self._run(waveform)
        except PretrainedModelError as error:
            raise MetricError(str(error)) from error

    def _run(self, waveform: Waveform) -> float:
        import torch

        try:
            with torch.inference_mode():
                scores = self._model(torch.from_numpy(np.ascontiguousarray(waveform, np.float32))[None, None])
            score = float(scores)
        except (RuntimeError, TypeError, ValueError) as error:
            raise PretrainedModelError(f"{self._path}: does not give one score for a clip; {WANTED}") from error
        if not np.isfinite(score):
            raise PretrainedModelError(f"{self._path}: its score is {score}; {WANTED}")
        return score
