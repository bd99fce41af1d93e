"""Variation of recordings: another voice, microphone and room, for data with few speakers."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import fftconvolve

Waveform = NDArray[np.float32]

RATE_HZ = 16000


def varied(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Return a waveform (samples,) at 16 kHz with another pitch, frequency response, room, noise and level.

    The level is -35 to -17 dB RMS, with peaks of at most -1 dB. Room and noise are random, too.
    """
    out = shift_voice(waveform, random)
    out = filter_randomly(out, random, range_db=6.0)
    if random.random() < 0.5:
        out = add_reverberation(out, random)
    if random.random() < 0.7:
        out = out + background_noise(out, random)
    level = 10 ** (random.uniform(-35, -17) / 20) / (rms(out) + 1e-9)
    return (out * min(level, 0.89 / (np.abs(out).max() + 1e-9))).astype(np.float32)


def shift_voice(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Scale pitch, formants and tempo by 0.8 to 0.94 or 1.06 to 1.25, as of a taller or smaller speaker."""
    factor = float(np.exp(random.uniform(0.06, 0.223) * random.choice([-1, 1])))
    return soxr.resample(waveform, RATE_HZ * factor, RATE_HZ)


def filter_randomly(waveform: Waveform, random: np.random.Generator, range_db: float) -> Waveform:
    """Apply a smooth random frequency response within +-`range_db`."""
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE_HZ)
    corners = np.geomspace(60, RATE_HZ / 2, 7)
    gain_db = np.interp(np.log(frequencies + 1), np.log(corners), random.uniform(-range_db, range_db, len(corners)))
    return np.fft.irfft(np.fft.rfft(waveform) * 10 ** (gain_db / 20), len(waveform)).astype(np.float32)


def add_reverberation(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Add noise-like reverberation that decays by 60 dB in 0.1 to 0.5 s, 6 to 20 dB below the direct sound."""
    decay_s = random.uniform(0.1, 0.5)
    times = np.arange(int(decay_s * RATE_HZ)) / RATE_HZ
    tail = random.standard_normal(len(times)) * 10 ** (-3 * times / decay_s)
    tail *= 10 ** (-random.uniform(6, 20) / 20) / np.linalg.norm(tail)
    late = fftconvolve(waveform, tail)[: len(waveform)]
    return (waveform + np.roll(late, int(0.003 * RATE_HZ))).astype(np.float32)


def background_noise(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Return stationary coloured noise, 15 to 45 dB below the speech."""
    noise = filter_randomly(random.standard_normal(len(waveform)).astype(np.float32), random, range_db=15.0)
    return noise * (rms(waveform) / (rms(noise) + 1e-9) * 10 ** (-random.uniform(15, 45) / 20))


def rms(waveform: Waveform) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
