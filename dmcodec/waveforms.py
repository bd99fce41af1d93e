"""Waveforms: arrays as users bring them, made mono float32 at the codec's sample rate; and 16-bit samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, AudioError, AudioWarning, DmcodecError, first_line

Waveform = NDArray[np.float32]

# No speech is recorded outside these, and resampling from 1 Hz would fill the memory.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 768_000
MAX_CHANNELS = 32
# Energy of the mean over that of channels that have nothing to do with each other. Below it, mixing down cancels.
CANCELLED = 0.1
# Float audio has its peak at 1; some recordings go beyond, but not tenfold.
MAX_PEAK = 10.0
_SILENT_POWER = 1e-7
_INTEGER_BITS = (8, 16, 24, 32)


def prepare_waveform(
    waveform: Any, sample_rate: int, target_rate: int, source: str = "waveform", channel: int | None = None
) -> Waveform:
    """Convert a waveform to mono float32 at `target_rate`.

    Args:
        waveform: (samples,) or (channels, samples); float32, float64 in [-1, 1], or int16, which is divided by 32768.
            Arrays of any byte order, lists, and torch tensors on any device are taken.
        sample_rate: of `waveform`, in Hz; resampled with soxr (high quality) if it differs from `target_rate`.
        target_rate: in Hz.
        source: name of the waveform in errors.
        channel: number of the channel to take, from 0 on; None averages them.

    Returns:
        (samples,) float32.

    Raises:
        AudioError: another shape or dtype, no samples, no such channel, NaN or infinite values, or a sample rate out of
            range.
        ArgumentError: `channel` is no whole number from 0 on.

    Warns:
        AudioWarning: channels that cancel where they are averaged, or values far beyond 1.
    """
    array = _checked_array(waveform, source)
    check_sample_rate(sample_rate, source)
    with np.errstate(over="ignore"):  # infinite values are refused below
        scaled: Waveform = array.astype(np.float32)
    if array.dtype.kind == "i":
        scaled /= 32768
    mixer = Mixer(source, channel)
    mono = mixer.mix(scaled[None] if scaled.ndim == 1 else scaled)
    mixer.finish()
    return np.ascontiguousarray(resampler(int(sample_rate), target_rate)(mono, True))


def as_array(values: Any, what: str, error: type[DmcodecError]) -> NDArray[Any]:
    """Return values of any kind as a plain array; torch tensors are taken from their device and graph.

    Raises:
        error: it can't be converted, or masked values have no value.
    """
    if str(getattr(values, "dtype", "")) == "torch.bfloat16":
        raise error(f"{what}: is bfloat16, which numpy doesn't have; convert it with .float()")
    try:
        if hasattr(values, "detach") and hasattr(values, "cpu"):  # a torch tensor
            values = values.detach().cpu()
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            values = np.from_dlpack(values)
        masked = np.ma.is_masked(values)
        array = np.asarray(values)
    except MemoryError:
        raise
    except Exception as failure:  # noqa: BLE001 - __array__ of foreign objects raises what it likes
        raise error(f"{what}: can't be converted to an array ({first_line(failure)})") from None
    if masked:
        raise error(f"{what}: holds masked values; give them a value, for example with .filled(0)")
    return array


def _checked_array(waveform: Any, source: str) -> NDArray[Any]:
    """Return a waveform as an array of a shape and a type that are taken."""
    array = as_array(waveform, source, AudioError)
    shape = array.shape
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= shape[0] <= MAX_CHANNELS):
        hint = ""
        if isinstance(waveform, (str, bytes)) or hasattr(waveform, "__fspath__"):
            hint = "; encode_file takes files"
        elif isinstance(waveform, dict):
            hint = '; take the samples out of it, for example with ["array"]'
        elif array.ndim == 2 and 1 <= shape[1] <= MAX_CHANNELS:
            hint = "; transpose (samples, channels) with .T"
        elif array.ndim == 0:
            hint = "; a batch is a list of waveforms"
        elif array.ndim == 3:
            hint = "; take one clip of a batch, for example with [0]"
        raise AudioError(f"{source}: expected shape (samples,) or (channels, samples), got {shape}{hint}")
    if shape[-1] == 0:
        raise AudioError(f"{source}: holds no samples")
    if array.ndim == 2 and shape[0] > max(2, shape[1]):
        raise AudioError(
            f"{source}: {shape[0]} channels of {shape[1]} samples; transpose (samples, channels) to "
            "(channels, samples) with .T"
        )
    kind = array.dtype.kind, array.dtype.itemsize
    if kind not in (("f", 4), ("f", 8), ("i", 2)):
        raise AudioError(f"{source}: expected float32, float64 or int16, got {array.dtype}{_conversion(array.dtype)}")
    return array


def _conversion(dtype: np.dtype[Any]) -> str:
    """Return what to do about an array of another type."""
    bits = 8 * dtype.itemsize
    if dtype.kind == "f":
        return "; convert it with .astype(np.float32)"
    if dtype.kind == "i" and bits in (8, 32):
        return f"; if it holds {bits}-bit samples, convert them: (x / {1 << bits - 1}).astype(np.float32)"
    if dtype.kind == "i":
        return "; if it holds 16-bit samples, convert it with .astype(np.int16)"
    if dtype == np.uint8:
        return "; if it holds 8-bit samples, convert them: ((x - 128.0) / 128).astype(np.float32)"
    return "; convert it to float32 in [-1, 1]"


def check_sample_rate(sample_rate: Any, source: str) -> None:
    """Raise AudioError for a sample rate that is no whole number or out of range."""
    whole = isinstance(sample_rate, (int, np.integer)) and not isinstance(sample_rate, bool)
    if not whole or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioError(
            f"{source}: sample_rate must be an integer from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, "
            f"not {sample_rate!r}"
        )


class Mixer:
    """Makes one channel of several, block by block, and warns once where the result is probably not what was meant.

    Args:
        source: name in errors and warnings.
        channel: the channel to take, from 0 on; None averages them.

    Raises:
        ArgumentError: `channel` is no whole number from 0 on.
    """

    def __init__(self, source: str, channel: int | None) -> None:
        if channel is not None and (
            not isinstance(channel, (int, np.integer)) or isinstance(channel, bool) or channel < 0
        ):
            raise ArgumentError(f"channel must be a whole number from 0 on, or None for their mean, not {channel!r}")
        self._source, self._channel = source, channel
        self._channels, self._peak = 1, 0.0
        self._power = self._expected_power = self._samples = 0.0

    def mix(self, samples: NDArray[np.float32]) -> Waveform:
        """Return one channel: (channels, samples) -> (samples,).

        Raises:
            AudioError: no such channel, or NaN or infinite values.
        """
        count = len(samples)
        if self._channel is not None and self._channel >= count:
            has = "1 channel, number 0" if count == 1 else f"{count} channels, numbers 0 to {count - 1}"
            raise AudioError(f"{self._source}: has no channel {self._channel}; it has {has}")
        with np.errstate(over="ignore", invalid="ignore"):
            mono: Waveform = (
                samples[self._channel or 0]
                if self._channel is not None or count == 1
                else samples.mean(axis=0, dtype=np.float32)
            )
        peak = max(abs(float(mono.max())), abs(float(mono.min()))) if len(mono) else 0.0
        if not np.isfinite(peak):
            raise AudioError(f"{self._source}: holds NaN or infinite values (or values too large for float32)")
        self._peak = max(self._peak, peak)
        if self._channel is None and count > 1:
            self._channels = count
            self._samples += samples.shape[1]
            self._power += _energy(mono)
            self._expected_power += sum(map(_energy, samples)) / count**2
        return mono

    def finish(self) -> None:
        """Warn about what was found in all blocks."""
        if self._peak > MAX_PEAK:
            bits = next((bits for bits in _INTEGER_BITS if self._peak <= 1 << bits - 1), 32)
            warn(
                f"{self._source}: holds values up to {self._peak:g}, but float audio lies within -1 to 1; these are "
                f"probably {bits}-bit integers as floats: divide them by {1 << bits - 1}"
            )
        loud = self._expected_power * self._channels > _SILENT_POWER * self._samples
        if loud and self._power < CANCELLED * self._expected_power:
            lost = "all" if self._power == 0 else f"{-10 * np.log10(self._power / self._expected_power):.0f} dB"
            warn(
                f"{self._source}: its {self._channels} channels cancel each other where they are averaged ({lost} of "
                "their sound is lost); take one of them with channel=0 or --channel 0"
            )


def warn(message: str) -> None:
    """Issue an AudioWarning."""
    warnings.warn(message, AudioWarning, stacklevel=3)


def _energy(samples: NDArray[np.float32]) -> float:
    return float(np.dot(samples.astype(np.float64), samples))


def resampler(sample_rate: int, target_rate: int) -> Callable[[Waveform, bool], Waveform]:
    """Return a function resample(samples, last) that takes the next samples and returns the resampled ones so far."""
    if sample_rate == target_rate:
        return lambda samples, _last: samples
    import soxr

    stream = soxr.ResampleStream(sample_rate, target_rate, 1, dtype="float32", quality="HQ")
    first: Waveform | None = None
    returned = 0

    def resample(samples: Waveform, last: bool) -> Waveform:
        nonlocal first, returned
        if first is None and len(samples):
            first = samples[:1]
        resampled: Waveform = stream.resample_chunk(samples, last=last)
        returned += len(resampled)
        # soxr rounds the length: of one or two samples nothing may remain
        return first if last and returned == 0 and first is not None else resampled

    return resample


def to_pcm16(waveform: Waveform) -> NDArray[np.int16]:
    """Round float samples to 16 bits, as all outputs do: 32768 steps for 1, values beyond [-1, 1] clipped."""
    scaled = np.rint(np.asarray(waveform, np.float32) * np.float32(32768))
    return np.clip(scaled, -32768, 32767).astype(np.int16)
