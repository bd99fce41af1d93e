"""What a verb leaves out of the folders that it was given: told on stderr, and in the JSON results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmcodec.file_search import LeftOut, describe_left_out
from dmcodec.text import one_line

from .common import note


def warn_left_out(left_out: Sequence[LeftOut]) -> None:
    """Count and name on stderr what is left out, if anything is."""
    if left_out:
        note(one_line(describe_left_out(left_out)))


def left_out_json(left_out: Sequence[LeftOut]) -> list[dict[str, Any]]:
    """Return what is left out as JSON values."""
    return [{"path": str(each.path), "reason": each.reason} for each in left_out]
