"""The user's cache folder of dmcodec: DMCODEC_CACHE, or the system's folder for caches."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "DMCODEC_CACHE"


def user_cache_folder() -> Path:
    """Return the folder, which need not exist.

    Raises:
        ModuleNotFoundError: DMCODEC_CACHE is not set, and platformdirs is not installed; who calls names the extra.
    """
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("dmcodec", appauthor=False)
