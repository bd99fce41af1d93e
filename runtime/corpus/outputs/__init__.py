"""The formats of the output, by the names of `--format`."""

from __future__ import annotations

from collections.abc import Mapping

from .parquet import PARQUET
from .writer import OutputFormat

FORMATS: Mapping[str, OutputFormat] = {each.name: each for each in (PARQUET,)}
