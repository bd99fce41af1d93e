"""Layouts: from codes to the ids of a language model, and back."""

from .layout import TokenLayout
from .parsing import Dropped, ParsedIds
from .patterns import (
    add_offsets,
    delay,
    flatten_frames,
    flatten_levels,
    remove_offsets,
    undelay,
    unflatten_frames,
    unflatten_levels,
)

__all__ = [
    "Dropped",
    "ParsedIds",
    "TokenLayout",
    "add_offsets",
    "delay",
    "flatten_frames",
    "flatten_levels",
    "remove_offsets",
    "undelay",
    "unflatten_frames",
    "unflatten_levels",
]
