"""`dmcodec train`: a table of verbs, whose work is imported only when a verb runs."""

from __future__ import annotations

from collections.abc import Callable

from . import fit, prepare, teach

TRAIN_VERBS: dict[str, Callable[..., None]] = {
    "prepare": prepare.prepare,
    "teach": teach.teach,
    "fit": fit.fit,
}
