"""MP3 and back through libsndfile, in memory."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from dmcodec.audio import Waveform
from dmcodec.errors import MetricError

# Sample rates of MP3 from the given one on, and the kbit/s that libsndfile's compression levels 0 and 1 stand for.
_RANGES = ((32000, 320, 32), (16000, 160, 8), (0, 64, 8))
SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MAX_DELAY = 4608  # four frames


def mp3_bytes(waveform: Waveform, sample_rate: int, kbit_s: int) -> bytes:
    """Encode (samples,) as MP3 of a constant bit rate.

    Raises:
        MetricError: MP3 doesn't have this sample rate, or libsndfile can't write MP3.
    """
    if sample_rate not in SAMPLE_RATES:
        raise MetricError(f"MP3 has no sample rate of {sample_rate} Hz")
    _, most, least = next(entry for entry in _RANGES if sample_rate >= entry[0])
    level = (most - min(kbit_s, most)) / (most - least)
    file = io.BytesIO()
    try:
        soundfile.write(
            file,
            waveform,
            sample_rate,
            "MPEG_LAYER_III",
            format="MP3",
            bitrate_mode="CONSTANT",
            compression_level=level,
        )
    except (soundfile.SoundFileError, ValueError, TypeError):
        raise MetricError('this libsndfile can\'t write MP3; run `pip install --upgrade "dmcodec[evaluate]"`') from None
    return file.getvalue()


def mp3_round_trip(waveform: Waveform, sample_rate: int, kbit_s: int) -> Waveform:
    """Encode (samples,) as MP3, decode it, and move it back by the delay at which both correlate most.

    Raises:
        MetricError: as `mp3_bytes`.
    """
    encoded = io.BytesIO(mp3_bytes(waveform, sample_rate, kbit_s))
    decoded, _ = soundfile.read(encoded, dtype="float32", always_2d=True)
    return _moved(decoded[:, 0], _delay(waveform, decoded[:, 0]), len(waveform))


def _delay(waveform: Waveform, decoded: Waveform) -> int:
    """Return the number of samples, at most MAX_DELAY either way, by which `decoded` is late."""
    size = len(waveform) + len(decoded) + MAX_DELAY
    spectrum = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(waveform, size))
    correlation = np.fft.irfft(spectrum, size)
    lags = np.arange(-MAX_DELAY, MAX_DELAY + 1)
    return int(lags[np.argmax(correlation[lags])])


def _moved(decoded: Waveform, delay: int, num_samples: int) -> Waveform:
    early = np.pad(decoded, (max(0, -delay), 0))[max(0, delay) :]
    return np.pad(early, (0, max(0, num_samples - len(early))))[:num_samples]
