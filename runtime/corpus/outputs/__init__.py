"""The formats of the output, by the names of `--format`."""

from __future__ import annotations

from collections.abc import Mapping

from .dmc import DMC
from .megatron import MEGATRON
from .parquet import PARQUET
from .webdataset import WEBDATASET
from .writer import OutputFormat

FORMATS: Mapping[str, OutputFormat] = {each.name: each for each in (PARQUET, MEGATRON, WEBDATASET, DMC)}
