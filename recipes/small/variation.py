"""A recording in another voice, through another microphone, in another room: what a studio's few voices lack."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import fftconvolve

Waveform = NDArray[np.float32]

RATE_HZ = 16000


def varied(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """`waveform` (samples,) at 16 kHz with other pitch and formants, filtered, in a room, with noise, at another level.

    The level is -35 to -17 dB RMS, with peaks of at most -1 dB.
    """
    out = other_voice(waveform, random)
    out = coloured(out, random, range_db=6.0)
    if random.random() < 0.5:
        out = in_a_room(out, random)
    if random.random() < 0.7:
        out = out + noise_beside(out, random)
    level = 10 ** (random.uniform(-35, -17) / 20) / (rms(out) + 1e-9)
    return (out * min(level, 0.89 / (np.abs(out).max() + 1e-9))).astype(np.float32)


def other_voice(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Pitch, formants and pace times 0.8 to 0.94 or 1.06 to 1.25: a taller or a smaller speaker."""
    factor = float(np.exp(random.uniform(0.06, 0.223) * random.choice([-1, 1])))
    return soxr.resample(waveform, RATE_HZ * factor, RATE_HZ)


def coloured(waveform: Waveform, random: np.random.Generator, range_db: float) -> Waveform:
    """A smooth random frequency response of +-`range_db`."""
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE_HZ)
    corners = np.geomspace(60, RATE_HZ / 2, 7)
    gain_db = np.interp(np.log(frequencies + 1), np.log(corners), random.uniform(-range_db, range_db, len(corners)))
    return np.fft.irfft(np.fft.rfft(waveform) * 10 ** (gain_db / 20), len(waveform)).astype(np.float32)


def in_a_room(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Reverberation: noise that decays by 60 dB in 0.1 to 0.5 s, 6 to 20 dB under the direct sound."""
    decay_s = random.uniform(0.1, 0.5)
    times = np.arange(int(decay_s * RATE_HZ)) / RATE_HZ
    tail = random.standard_normal(len(times)) * 10 ** (-3 * times / decay_s)
    tail *= 10 ** (-random.uniform(6, 20) / 20) / np.linalg.norm(tail)
    late = fftconvolve(waveform, tail)[: len(waveform)]
    return (waveform + np.roll(late, int(0.003 * RATE_HZ))).astype(np.float32)


def noise_beside(waveform: Waveform, random: np.random.Generator) -> Waveform:
    """Steady coloured noise, 15 to 45 dB under the speech."""
    noise = coloured(random.standard_normal(len(waveform)).astype(np.float32), random, range_db=15.0)
    return noise * (rms(waveform) / (rms(noise) + 1e-9) * 10 ** (-random.uniform(15, 45) / 20))


def rms(waveform: Waveform) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
