"""What is told of a clip beside its codes, as JSON, in formats that have no columns of their own."""

from __future__ import annotations

import json
import math
from typing import Any

from .writer import Row, WriterSettings


def clip_facts(row: Row, settings: WriterSettings) -> dict[str, Any]:
    """Return the columns of a clip as JSON values, in the order of the Parquet format; infinities and NaN are null.

    Passed-through columns stand under `columns`, so that none hides another value.
    """
    return {
        "id": row.id,
        "num_samples": row.num_samples,
        "duration_s": row.num_samples / row.sample_rate,
        "first_level": row.first_level,
        "n_q": row.codes.shape[0],
        "columns": {name: _finite(row.columns.get(name)) for name in settings.columns},
    }


def model_facts(settings: WriterSettings) -> dict[str, Any]:
    """Return what codes need to become tokens again, as JSON values."""
    return {
        "model_id": settings.model_id,
        "precision": settings.precision,
        "sample_rate": settings.sample_rate,
        "hop_length": settings.hop_length,
        "codebook_size": settings.codebook_size,
    }


def json_line(values: dict[str, Any]) -> bytes:
    """Return values as one line of JSON, in UTF-8; characters that UTF-8 lacks are escaped."""
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(values).encode() + b"\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
