"""Sample speech: ten seconds that come with the package (LibriVox, public domain)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .audio import Waveform, prepare_waveform, read_audio

SPEECH_FILE = Path(__file__).parent / "data" / "speech.flac"


def speech(num_samples: int, sample_rate: int) -> Waveform:
    """Return speech (num_samples,) float32 at `sample_rate` in Hz; the clip is repeated if it is too short."""
    clip = prepare_waveform(*read_audio(SPEECH_FILE), sample_rate)
    return np.resize(clip, num_samples)
