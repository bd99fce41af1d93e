"""The receptive fields of the decoder and the encoder: what one frame depends on.

They are computed from the configuration: from one output frame back through the layers of `dmcodec.nn.seanet` to the
frames or samples that they depend on.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from .config import KERNEL_SIZE, CodecConfig


@dataclasses.dataclass(frozen=True)
class DecoderReach:
    """Frames that one output frame depends on, besides itself.

    Attributes:
        front: latent frames on each side of an LSTM frame, in the first convolution.
        past: LSTM frames before an output frame, in the upsampling.
        future: LSTM frames after an output frame, in the upsampling.
    """

    front: int
    past: int
    future: int

    @property
    def look_ahead_frames(self) -> int:
        """Latent frames that must follow a frame before its audio is final."""
        return self.front + self.future


def decoder_reach(config: CodecConfig) -> DecoderReach:
    """Return the receptive field of a configuration's decoder, without the LSTM, whose past is kept as a state."""
    end = config.hop_length - 1  # the last sample of a frame
    inside = _upsampler_needs(config, end, first=False, last=False)
    at_start = _upsampler_needs(config, end, first=True, last=False)
    at_end = _upsampler_needs(config, end, first=False, last=True)
    return DecoderReach(
        front=(KERNEL_SIZE - 1) // 2,
        past=-min(inside[0], at_end[0]),
        future=max(inside[1], at_start[1]),
    )


def _upsampler_needs(config: CodecConfig, end: int, first: bool, last: bool) -> tuple[int, int]:
    """Return the first and the last LSTM frame, relative to frame 0, that samples 0 to `end` of frame 0 depend on.

    `first` and `last`: frame 0 is the first or the last of the clip, where the padding is a reflection.
    """
    low, high = _convolution(0, end, KERNEL_SIZE, 1, end, first, last)
    for stride in reversed(config.strides):
        for layer in reversed(range(config.n_residual_layers)):
            dilation = config.dilation_base**layer
            low, high = _convolution(low, high, config.residual_kernel_size, dilation, end, first, last)
        trim_left = stride - stride // 2
        low, high = (low + trim_left) // stride - 1, (high + trim_left) // stride
        end = (end + 1) // stride - 1
        low, high = (max(low, 0) if first else low), (min(high, end) if last else high)
    return low, high


def _convolution(
    low: int, high: int, kernel_size: int, dilation: int, end: int, first: bool, last: bool
) -> tuple[int, int]:
    """Return the range of input positions that outputs `low` to `high` of a convolution depend on."""
    total = (kernel_size - 1) * dilation
    low, high = low - (total - total // 2), high + total // 2
    if first and low < 0:
        low, high = 0, max(high, -low)
    if last and high > end:
        low, high = min(low, 2 * end - high), end
    return low, high


@dataclasses.dataclass(frozen=True)
class EncoderReach:
    """What one latent frame depends on, besides the LSTM, whose states are kept.

    Attributes:
        past_samples: samples before the first sample of a frame that its features depend on.
        future_samples: samples after the last sample of a frame that its features depend on.
        output_frames: LSTM frames on each side of a latent frame, in the last convolution.
    """

    past_samples: int
    future_samples: int
    output_frames: int


@lru_cache(maxsize=16)
def encoder_reach(config: CodecConfig) -> EncoderReach:
    """Return the receptive field of a configuration's encoder.

    It holds at the ends of a clip, too, where the padding is a reflection, and for any length of the clip.
    """
    hop, middle = config.hop_length, 8
    past, future = 0, 0
    for length in range(2 * middle * hop, (2 * middle + 1) * hop):
        frames = -(-length // hop)
        for frame in (0, 1, middle, frames - 2, frames - 1):
            low, high = _downsampler_needs(config, length, frame)
            past, future = max(past, frame * hop - low), max(future, high - (frame + 1) * hop + 1)
    return EncoderReach(past, future, (KERNEL_SIZE - 1) // 2)


def _downsampler_needs(config: CodecConfig, length: int, frame: int) -> tuple[int, int]:
    """Return the first and the last sample that the features of a frame of a clip of `length` samples depend on."""
    lengths = [length]
    for stride in reversed(config.strides):
        lengths.append(-(-lengths[-1] // stride))
    low = high = frame
    for stride, size in zip(config.strides, reversed(lengths[:-1]), strict=True):
        left = stride - stride // 2  # of a kernel of 2 * stride
        low, high = _reflected(low * stride - left, high * stride - left + 2 * stride - 1, size)
        for layer in reversed(range(config.n_residual_layers)):
            total = (config.residual_kernel_size - 1) * config.dilation_base**layer
            low, high = _reflected(low - (total - total // 2), high + total // 2, size)
    return _reflected(low - KERNEL_SIZE // 2, high + KERNEL_SIZE // 2, length)


def _reflected(low: int, high: int, size: int) -> tuple[int, int]:
    """Return the range of positions 0 to size - 1 that holds `low` to `high` after reflection at both ends."""
    end = size - 1
    inside = [max(low, 0), min(high, end)]
    if low < 0:
        inside[1] = max(inside[1], -low)
    if high > end:
        inside[0] = min(inside[0], 2 * end - high)
    return inside[0], inside[1]
