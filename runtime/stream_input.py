"""The samples of a live stream: checked, converted to float32, and resampled to the codec's rate as they come in."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import ArgumentError, AudioError
from dmcodec.waveforms import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE

Array = NDArray[np.float32]

_QUALITY = "HQ"
_LAG_CHUNKS_PER_S = 1000  # resolution of a measured lag
_LAG_S = 2.0


class StreamInput:
    """Converts the pushes of one stream; the joined results are what the whole clip is converted to.

    Args:
        sample_rate: of the pushed samples, in Hz.
        target_rate: of the results, in Hz.
        batch_size: clips in parallel; None for one clip without a batch axis.

    Raises:
        ArgumentError: a sample rate out of range.
    """

    def __init__(self, sample_rate: int, target_rate: int, batch_size: int | None) -> None:
        whole = isinstance(sample_rate, (int, np.integer)) and not isinstance(sample_rate, bool)
        if not whole or not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
            raise ArgumentError(
                f"sample_rate must be an integer from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, not {sample_rate!r}"
            )
        self.sample_rate, self._target_rate, self._batch_size = int(sample_rate), target_rate, batch_size
        self.reset()

    @property
    def resamples(self) -> bool:
        """Whether the samples have another rate than the codec's."""
        return self.sample_rate != self._target_rate

    @property
    def holds_back(self) -> bool:
        """Whether samples of which nothing came out yet are with soxr."""
        return self._first is not None and not self._returned

    def reset(self) -> None:
        """Begin a new clip."""
        self._resampler = self._new_resampler() if self.resamples else None
        self._first: Array | None = None
        self._returned = 0

    def checked(self, samples: Any) -> Array:
        """Return the samples of a push as [B, n] float32; the stream is unchanged.

        Raises:
            AudioError: another shape or dtype, NaN or infinite values.
        """
        try:
            array = np.asarray(samples)
        except ValueError as error:  # rows of different lengths
            raise AudioError(f"stream: the samples can't be converted to an array ({error})") from None
        expected = "(samples,)" if self._batch_size is None else f"({self._batch_size}, samples)"
        leading = () if self._batch_size is None else (self._batch_size,)
        if array.ndim != len(leading) + 1 or array.shape[:-1] != leading:
            raise AudioError(f"stream: expected samples {expected}, got {array.shape}")
        if array.dtype not in (np.int16, np.float32, np.float64):
            raise AudioError(f"stream: expected float32, float64 or int16 samples, got {array.dtype}")
        with np.errstate(over="ignore"):  # infinite values are refused below
            scaled: Array = array.astype(np.float32).reshape(self._batch_size or 1, -1)
        if array.dtype == np.int16:
            scaled /= 32768
        if not np.isfinite(scaled).all():
            raise AudioError("stream: the samples hold NaN or infinite values (or values too large for float32)")
        return scaled

    def convert(self, samples: Array, last: bool = False) -> Array:
        """Return `checked` samples [B, n] at the codec's rate: those that are final now."""
        if self._resampler is None:
            return samples
        if self._first is None and samples.shape[1]:
            self._first = samples[:, :1]
        resampled: Array = self._resampler.resample_chunk(np.ascontiguousarray(samples.T), last=last).T
        self._returned += resampled.shape[1]
        # soxr rounds the length: of one or two samples nothing may remain
        return self._first if last and not self._returned and self._first is not None else resampled

    def _new_resampler(self) -> Any:
        import soxr

        channels = self._batch_size or 1
        return soxr.ResampleStream(self.sample_rate, self._target_rate, channels, dtype="float32", quality=_QUALITY)


@lru_cache(maxsize=32)
def resampler_lag(sample_rate: int, target_rate: int) -> int:
    """Return how many samples soxr's stream holds back at most, in samples of the input.

    soxr works in blocks of its own, whose sizes depend on the two rates. They are measured: two seconds of silence are
    pushed in steps of about a millisecond, by which the result may be larger than the real lag.
    """
    import soxr

    stream = soxr.ResampleStream(sample_rate, target_rate, 1, dtype="float32", quality=_QUALITY)
    chunk = np.zeros(max(1, sample_rate // _LAG_CHUNKS_PER_S), np.float32)
    ratio, lag, returned = sample_rate / target_rate, 0.0, 0
    for pushed in range(len(chunk), round(_LAG_S * sample_rate), len(chunk)):
        lag = max(lag, pushed - returned * ratio)  # just before these samples make a block complete
        returned += len(stream.resample_chunk(chunk))
    return math.ceil(lag + ratio)
