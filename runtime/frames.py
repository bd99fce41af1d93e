"""Values whose last axis is time and grows piece by piece: arrays, or values on a backend's device."""

from __future__ import annotations

from typing import Any

import numpy as np

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
