"""The ten seconds of real speech that come with the package (LibriVox, public domain)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .audio import Waveform, prepare_waveform, read_audio

SPEECH_FILE = Path(__file__).parent / "data" / "speech.flac"


def speech(num_samples: int, sample_rate: int) -> Waveform:
    """`num_samples` of speech at `sample_rate`, the clip repeated where it is too short: (num_samples,) float32."""
    clip = prepare_waveform(*read_audio(SPEECH_FILE), sample_rate)
    return np.resize(clip, num_samples)
