"""Teachers' frames on the codec's frame grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAME_RATE = 0.02  # relative; HuBERT's 149 frames for 3 s at 50 Hz are the codec's 150, but for the last


def on_grid(
    features: NDArray[np.floating], rate_hz: float, num_frames: int, frame_rate_hz: float, nearest: bool = False
) -> NDArray[np.float32]:
    """Puts features of one frame rate on the grid of another.

    Rates within 2 % of each other count as equal, and frames are taken one for one. Otherwise the features are
    interpolated linearly in time at the centres of the new frames; before the first and after the last centre, the
    first and last values hold.

    Args:
        features: (teacher_frames, width).
        rate_hz: of `features`.
        num_frames: wanted.
        frame_rate_hz: wanted.
        nearest: takes the nearest frame instead of interpolating: rows of zeros mean "nothing", and blend with nothing.

    Returns:
        (min(num_frames, frames there are), width) float32: a teacher that has fewer frames for the same time gives
        fewer, and the loss cuts to the shorter, as the paper does.
    """
    if abs(rate_hz - frame_rate_hz) <= SAME_RATE * frame_rate_hz:
        return np.array(features[:num_frames], np.float32)
    there_are = max(1, round(len(features) / rate_hz * frame_rate_hz)) if len(features) else 0
    centres = (np.arange(min(num_frames, there_are)) + 0.5) / frame_rate_hz
    positions = np.clip(centres * rate_hz - 0.5, 0, max(len(features) - 1, 0))
    if nearest:
        return np.array(features[np.rint(positions).astype(np.int64)], np.float32)
    below = np.floor(positions).astype(np.int64)
    above = np.minimum(below + 1, max(len(features) - 1, 0))
    share = (positions - below).astype(np.float32)[:, None]
    lower, upper = np.asarray(features[below], np.float32), np.asarray(features[above], np.float32)
    return np.asarray(lower + share * (upper - lower), np.float32)
