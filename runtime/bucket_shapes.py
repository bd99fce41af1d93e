"""The few shapes that a GPU provider runs, and the results that are padded to them; see `dmcodec.runtime.buckets`."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from dmcodec.config import CodecConfig
from dmcodec.runtime.tensorrt.profiles import Shape

SHORT_STEP_S, LONG_STEP_S, LONG_S = 0.25, 0.5, 5.0


@dataclasses.dataclass(frozen=True, eq=False)
class PaddedValue:
    """A result with padding.

    Attributes:
        value: the backend's tensor.
        padded_shape: its shape.
        shape: without the padding, which lies at the end of each axis.
    """

    value: Any
    padded_shape: Shape
    shape: Shape


def bucket_size(axis: str, size: int, config: CodecConfig) -> int:
    """Return the size of the bucket that holds `size` of an axis: "batch", "samples" or "frames"."""
    if axis == "batch":
        return 1 << (size - 1).bit_length()
    if axis == "samples":
        return bucket_frames(config.num_frames(size), config.frame_rate) * config.hop_length
    return bucket_frames(size, config.frame_rate)


def bucket_frames(frames: int, frame_rate: float) -> int:
    """Return `frames` rounded up to the next bucket: steps of 0.25 s, from 5 s on of 0.5 s, in whole frames."""
    step_s = SHORT_STEP_S if frames <= LONG_S * frame_rate else LONG_STEP_S
    step = max(1, math.floor(step_s * frame_rate))
    return -(-frames // step) * step
