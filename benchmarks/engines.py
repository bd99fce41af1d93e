"""TensorRT engines of a bundle and what building them took, from the records that the build left beside them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

FOLDER = "engines"  # within the bundle


@dataclasses.dataclass(frozen=True)
class EngineFacts:
    """One engine. `build_s` is the time of its build, which no figure of a run contains; None where unknown."""

    graph: str
    precision: str
    library: str
    architectures: tuple[str, ...]
    size_bytes: int
    build_s: float | None


def engines_of(bundle: str | Path) -> tuple[EngineFacts, ...]:
    """The engines in a bundle whose record can be read."""
    found = []
    for path in sorted((Path(bundle) / FOLDER).glob("*.engine.json")):
        try:
            found.append(_facts(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the backend says what is wrong with it when it is asked to run it
    return tuple(found)


def _facts(record: dict[str, Any]) -> EngineFacts:
    key = record["key"]
    return EngineFacts(
        graph=str(key["graph"]),
        precision=str(key["precision"]),
        library=f"{key['flavour']} {key['version']}",
        architectures=tuple(map(str, key["architectures"])),
        size_bytes=int(record["size_bytes"]),
        build_s=record.get("facts", {}).get("build_s"),
    )
