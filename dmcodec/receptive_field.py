"""The receptive field of the decoder: frames before and after a frame that its audio depends on.

It is computed from the configuration: from the samples of one output frame back through the layers of
`dmcodec.nn.seanet.Decoder` to the frames that they depend on.
"""

from __future__ import annotations

import dataclasses

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
