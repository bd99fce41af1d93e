"""Spectrograms as small WebP images, all of a clip on one scale."""

from __future__ import annotations

import importlib.util
import io

import numpy as np
from numpy.typing import NDArray

from dmcodec.audio import Waveform
from dmcodec.benchmarks.evaluation.mel import magnitudes
from dmcodec.errors import MissingDependencyError

N_FFT = 512
RANGE_DB = 80.0
WIDTH_PX, HEIGHT_PX = 720, 192
_FLOOR = 1e-7


def require_plotting() -> None:
    """Raises MissingDependencyError where matplotlib or Pillow isn't installed."""
    for module, package in (("matplotlib", "matplotlib"), ("PIL", "pillow")):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(f"the page needs {package}; run `pip install dmcodec[evaluate]`")


def levels_db(waveform: Waveform, num_samples: int) -> NDArray[np.float64]:
    """Short-time level in dB: (samples,) -> (frequencies, WIDTH_PX), lowest frequency first.

    The time axis spans `num_samples`; what the waveform lacks of it is silence.
    """
    padded = np.zeros(max(num_samples, N_FFT) + N_FFT)
    padded[N_FFT // 2 :][: len(waveform)] = waveform[:num_samples]
    frames = magnitudes(padded, N_FFT, max(1, num_samples // (2 * WIDTH_PX)))
    columns = np.linspace(0, frames.shape[1], WIDTH_PX + 1).astype(int)[:-1]
    return np.asarray(20 * np.log10(np.maximum(np.maximum.reduceat(frames, columns, axis=1), _FLOOR)))


def spectrogram_webp(waveform: Waveform, num_samples: int, loudest_db: float) -> bytes:
    """An image of WIDTH_PX x HEIGHT_PX: 0 Hz at the bottom, from `loudest_db` - RANGE_DB (dark) to `loudest_db`."""
    from matplotlib import colormaps
    from PIL import Image

    shares = np.clip((levels_db(waveform, num_samples) - loudest_db) / RANGE_DB + 1, 0, 1)
    pixels = colormaps["magma"](np.flipud(shares), bytes=True)[..., :3]
    buffer = io.BytesIO()
    resized = Image.fromarray(np.ascontiguousarray(pixels)).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.LANCZOS)
    resized.save(buffer, "WEBP", quality=72, method=4)
    return buffer.getvalue()
