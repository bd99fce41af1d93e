"""Running something with a stopwatch, and telling how far the work has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


def timed(work: Callable[..., NDArray[Any]], *args: Any, **kwargs: Any) -> tuple[float, NDArray[Any]]:
    """Seconds that `work` took on the arguments, and its result."""
    start = time.perf_counter()
    result = work(*args, **kwargs)
    return time.perf_counter() - start, result
