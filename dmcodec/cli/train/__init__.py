"""`dmcodec train`: its table of verbs."""

from __future__ import annotations

from collections.abc import Callable

from . import fit, prepare, teach

TRAIN_VERBS: dict[str, Callable[..., None]] = {
    "prepare": prepare.prepare,
    "teach": teach.teach,
    "fit": fit.fit,
}
