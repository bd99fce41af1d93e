"""The receptive fields of the decoder and the encoder: what one frame depends on.

They are computed from the configuration: from one output frame back through the layers of `dmcodec.nn.seanet` to the
frames or samples that they depend on. At the start of a clip the padding is a reflection, so that the first frames
depend on later ones than others do; of causal convolutions these are the only ones.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from .config import KERNEL_SIZE, CodecConfig
from .convolutions import ConvPadding


@dataclasses.dataclass(frozen=True)
class DecoderReach:
    """Frames that one output frame depends on, besides itself.

    Attributes:
        front: latent frames before an LSTM frame, in the first convolution.
        front_future: latent frames after an LSTM frame, in the first convolution.
        past: LSTM frames before an output frame, in the upsampling.
        future: LSTM frames after an output frame, in the upsampling.
        head: LSTM frames from the clip's first on that its first output frame depends on.
    """

    front: int
    front_future: int
    past: int
    future: int
    head: int

    @property
    def front_frames(self) -> int:
        """Latent frames on both sides of an LSTM frame, in the first convolution."""
        return self.front + self.front_future

    @property
    def front_head(self) -> int:
        """Latent frames from the clip's first on that its first LSTM frame depends on."""
        return max(self.front, self.front_future) + 1

    @property
    def look_ahead_frames(self) -> int:
        """Latent frames that must follow a frame before its audio is final, once the clip has begun."""
        return self.front_future + self.future

    @property
    def first_frames(self) -> int:
        """Latent frames that must be there before the audio of the clip's first frame is final."""
        return max(self.front_head, max(self.head, self.future + 1) + self.front_future)


@lru_cache(maxsize=16)
def decoder_reach(config: CodecConfig) -> DecoderReach:
    """Return the receptive field of a configuration's decoder, without the LSTM, whose past is kept as a state."""
    end = config.hop_length - 1  # the last sample of a frame
    inside = _upsampler_needs(config, end, first=False, last=False)
    at_start = _upsampler_needs(config, end, first=True, last=False)
    at_end = _upsampler_needs(config, end, first=False, last=True)
    first = config.padding(KERNEL_SIZE)
    return DecoderReach(
        front=first.left,
        front_future=first.right,
        past=-min(inside[0], at_end[0]),
        future=inside[1] if config.causal else max(inside[1], at_start[1]),
        head=at_start[1] + 1,
    )


def _upsampler_needs(config: CodecConfig, end: int, first: bool, last: bool) -> tuple[int, int]:
    """Return the first and the last LSTM frame, relative to frame 0, that samples 0 to `end` of frame 0 depend on.

    `first` and `last`: frame 0 is the first or the last of the clip, where the padding is a reflection.
    """
    low, high = _convolution(0, end, config.padding(KERNEL_SIZE), end, first, last)
    for stride in reversed(config.strides):
        for layer in reversed(range(config.n_residual_layers)):
            padding = config.padding(config.residual_kernel_size, dilation=config.dilation_base**layer)
            low, high = _convolution(low, high, padding, end, first, last)
        trim_left = config.trim(stride).left
        low, high = (low + trim_left) // stride - 1, (high + trim_left) // stride
        end = (end + 1) // stride - 1
        low, high = (max(low, 0) if first else low), (min(high, end) if last else high)
    return low, high


def _convolution(low: int, high: int, padding: ConvPadding, end: int, first: bool, last: bool) -> tuple[int, int]:
    """Return the range of input positions that outputs `low` to `high` of a convolution depend on."""
    low, high = low - padding.left, high + padding.right
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
        head_samples: samples from the clip's first on that the features of its first frame depend on.
        output_frames: LSTM frames before a latent frame, in the last convolution.
        output_future: LSTM frames after a latent frame, in the last convolution.
    """

    past_samples: int
    future_samples: int
    head_samples: int
    output_frames: int
    output_future: int

    @property
    def output_head(self) -> int:
        """LSTM frames from the clip's first on that its first latent frame depends on."""
        return max(self.output_frames, self.output_future) + 1

    def samples_of(self, stop_frame: int, hop_length: int) -> int:
        """Return how many samples of a clip the features of its frames before `stop_frame` depend on."""
        return max(stop_frame * hop_length + self.future_samples, self.head_samples)

    def tile_frames_after(self, size: int, hop_length: int) -> int:
        """Return the frames that follow a tile of `size` frames, so that its features depend on no later samples."""
        return max(0, -(-(self.samples_of(size, hop_length)) // hop_length) - size)


@lru_cache(maxsize=16)
def encoder_reach(config: CodecConfig) -> EncoderReach:
    """Return the receptive field of a configuration's encoder.

    It holds at the ends of a clip, too, where the padding is a reflection, and for any length of the clip.
    """
    middle = 8
    while True:
        found = _reach_in_clips(config, middle)
        if max(found.past_samples, found.future_samples) < (middle - 1) * config.hop_length:
            return found
        middle *= 2  # the clips were too short to show all of it


def _reach_in_clips(config: CodecConfig, middle: int) -> EncoderReach:
    """Return what is seen of the receptive field in clips of about twice `middle` frames."""
    hop, past, future, head = config.hop_length, 0, 0, 0
    for length in range(2 * middle * hop, (2 * middle + 1) * hop):
        frames = -(-length // hop)
        for frame in (0, 1, middle, frames - 2, frames - 1):
            low, high = _downsampler_needs(config, length, frame)
            past = max(past, frame * hop - low)
            if frame == 0:
                head = max(head, high + 1)
            if frame > 1 or not config.causal:
                future = max(future, high - (frame + 1) * hop + 1)
    output = config.padding(KERNEL_SIZE)
    return EncoderReach(past, future, head, output.left, output.right)


def _downsampler_needs(config: CodecConfig, length: int, frame: int) -> tuple[int, int]:
    """Return the first and the last sample that the features of a frame of a clip of `length` samples depend on."""
    lengths = [length]
    for stride in reversed(config.strides):
        lengths.append(-(-lengths[-1] // stride))
    low = high = frame
    for stride, size in zip(config.strides, reversed(lengths[:-1]), strict=True):
        left = config.padding(2 * stride, stride).left
        low, high = _reflected(low * stride - left, high * stride - left + 2 * stride - 1, size)
        for layer in reversed(range(config.n_residual_layers)):
            padding = config.padding(config.residual_kernel_size, dilation=config.dilation_base**layer)
            low, high = _reflected(low - padding.left, high + padding.right, size)
    first = config.padding(KERNEL_SIZE)
    return _reflected(low - first.left, high + first.right, length)


def _reflected(low: int, high: int, size: int) -> tuple[int, int]:
    """Return the range of positions 0 to size - 1 that holds `low` to `high` after reflection at both ends."""
    end = size - 1
    inside = [max(low, 0), min(high, end)]
    if low < 0:
        inside[1] = max(inside[1], -low)
    if high > end:
        inside[0] = min(inside[0], 2 * end - high)
    return inside[0], inside[1]
