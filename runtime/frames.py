"""Values along time: pieces that are joined and cut, and the padding at the ends of a clip.

The pieces have time as their last axis, and are arrays or values on a backend's device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backend import DeviceTensor


def joined(before: DeviceTensor, after: DeviceTensor) -> Any:
    """Return two values one after the other in time. They are on the device where one of them is."""
    if not before.shape[-1]:
        return after
    host = [isinstance(value, np.ndarray) for value in (before, after)]
    if all(host):
        return np.concatenate([before, after], axis=-1)
    if host[0]:
        return after.beside(before).joined(after)
    return before.joined(before.beside(after) if host[1] else after)


def part(value: DeviceTensor, start: int, stop: int | None = None) -> Any:
    """Return frames or samples `start` to `stop` of a value."""
    return value[..., start:stop] if isinstance(value, np.ndarray) else value.part(-1, start, stop)


def reflected(values: NDArray[Any], before: int, after: int, axis: int = 0) -> NDArray[Any]:
    """Pad an array in time by reflection at the ends of the clip, as `dmcodec.nn.layers.reflect_pad` does."""
    if not before and not after:
        return values
    values = np.asarray(values)
    length = values.shape[axis]
    extension = max(0, max(before, after) - length + 1)

    def widths(left: int, right: int) -> list[tuple[int, int]]:
        return [(left, right) if each == axis % values.ndim else (0, 0) for each in range(values.ndim)]

    padded = np.pad(np.pad(values, widths(0, extension)), widths(before, after), mode="reflect")
    return np.take(padded, range(before + length + after), axis=axis) if extension else padded
