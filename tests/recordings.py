"""Recordings of noise and the data prepared from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from dmcodec.audio_sources import DatasetOptions, find_sources
from dmcodec.training.data import PreparedData
from dmcodec.training.data.prepare import PrepareSettings, prepare

RATE = 16000


def noise(seconds: float, seed: int = 0, rate: int = RATE) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


def recordings(folder: Path, lengths_s: list[float]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, length_s in enumerate(lengths_s):
        soundfile.write(folder / f"{index:02d}.wav", noise(length_s, index), RATE, subtype="PCM_16")
    return folder


def prepared(inputs: list[str], out: Path, **options: Any) -> PreparedData:
    settings = PrepareSettings(**{"segment_s": 1.0, "validation": 0.3, **options.pop("settings", {})})
    prepare(find_sources(inputs, options.pop("speaker_from", None), DatasetOptions()), out, settings, **options)
    return PreparedData.open(out)
