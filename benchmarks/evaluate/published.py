"""Figures that others published, from a JSON file: marked rows beside what is measured here."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmcodec.errors import EvaluationError, InputNotFoundError, detail
from dmcodec.text_files import read_text

from .metrics import METRICS

_NEEDED, _OPTIONAL = ("name", "metric", "value", "source"), "note"
_FORM = '[{"name": "EnCodec", "metric": "stoi", "value": 0.92, "source": "arXiv 2410.15017, Table 1"}, ...]'


@dataclasses.dataclass(frozen=True)
class Published:
    """One row: the figures of one codec in one source.

    Attributes:
        name: of the codec.
        source: where the figures stand.
        values: by metric, in its unit.
        notes: by metric, what a reader must know of its figure.
    """

    name: str
    source: str
    values: Mapping[str, float]
    notes: Mapping[str, str]


def read_published(path: Path, wanted: Sequence[str]) -> tuple[Published, ...]:
    """Read a list of figures, each with `name`, `metric`, `value`, `source` and perhaps `note`.

    Args:
        path: JSON file.
        wanted: keys of the metrics that are measured.

    Returns:
        A row for each name and source, in order.

    Raises:
        InputNotFoundError: no such file.
        EvaluationError: it is no such list, or none of its metrics is measured; the message names the figure.
    """
    rows: dict[tuple[str, str], Published] = {}
    for number, entry in enumerate(_entries(path), 1):
        where = f"{path}: figure {number}"
        name, metric, value, source, note = _figure(entry, where)
        row = rows.setdefault((name, source), Published(name, source, {}, {}))
        if metric in row.values:
            raise EvaluationError(f"{where}: {name} has a second {metric} from the same source; keep one of them")
        values, notes = {**row.values, metric: value}, {**row.notes, **({metric: note} if note else {})}
        rows[name, source] = dataclasses.replace(row, values=values, notes=notes)
    known = {metric: None for row in rows.values() for metric in row.values}
    if not any(metric in wanted for metric in known):
        raise EvaluationError(f"{path}: none of its metrics ({', '.join(known)}) is measured; add one to --metrics")
    return tuple(rows.values())


def _entries(path: Path) -> list[Any]:
    try:
        found = json.loads(read_text(path))
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such file of published figures") from None
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"{path}: can't be read as JSON ({detail(error)}); it should be {_FORM}") from None
    if not isinstance(found, list) or not found:
        raise EvaluationError(f"{path}: is not a list of published figures; it should be {_FORM}")
    return found


def _figure(entry: Any, where: str) -> tuple[str, str, float, str, str]:
    if not isinstance(entry, dict) or (missing := [key for key in _NEEDED if key not in entry]):
        lacks = f"lacks {missing[0]}" if isinstance(entry, dict) else "is no object"
        raise EvaluationError(f"{where}: {lacks}; a figure is as in {_FORM}")
    if unknown := [key for key in entry if key not in (*_NEEDED, _OPTIONAL)]:
        raise EvaluationError(
            f"{where}: {unknown[0]!r} is not known; a figure has {', '.join(_NEEDED)} and perhaps note"
        )
    value = entry["value"]
    texts = [entry[key] for key in ("name", "metric", "source")] + [entry.get(_OPTIONAL, "-")]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise EvaluationError(f"{where}: name, metric, source and note must be texts that are not empty")
    if entry["metric"] not in METRICS:
        raise EvaluationError(f"{where}: metric {entry['metric']!r} is not known; use one of {', '.join(METRICS)}")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise EvaluationError(f"{where}: value {value!r} is not a number; write it as in 0.92")
    return entry["name"], entry["metric"], float(value), entry["source"], entry.get(_OPTIONAL, "")
