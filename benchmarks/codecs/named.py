"""Paths of codecs in options, with the names that their results have."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from dmcodec.errors import ArgumentError

from .transformers import is_transformers, short_name


@dataclasses.dataclass(frozen=True)
class Named:
    """The path of a codec or of a folder of audio, and its name; without a name it is called after the path.

    A path can also be `transformers:` and the id or the folder of a model.
    """

    path: Path
    name: str | None = None

    @classmethod
    def parse(cls, argument: str) -> Named:
        """Parse `NAME=PATH` or `PATH`. An existing path is never split, nor is what begins with `transformers:`."""
        name, equals, path = argument.partition("=")
        if not equals or is_transformers(argument) or os.path.lexists(argument):
            return cls(Path(argument))
        if not name.strip() or not path:
            raise ArgumentError(f"{argument!r}: expected PATH or NAME=PATH")
        return cls(Path(path), name.strip())

    @property
    def title(self) -> str:
        """The name, or else the name of the folder, or the name of the file without its suffix."""
        if is_transformers(self.path):
            return self.name or short_name(self.path)
        path = self.path.absolute()
        return self.name or (path.name if os.path.isdir(path) else path.stem)  # noqa: PTH112 - long names
