"""TensorRT engines of a bundle and what building them took, from the records that the build left beside them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dmcodec.tensorrt.store import EngineRecord, EngineStore, engine_folder


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
    """The engines in a bundle whose record is whole; of the others the backend says what is wrong when it runs."""
    records, _problems = EngineStore(engine_folder(Path(bundle), None)).records()
    return tuple(_facts(record) for record in records)


def _facts(record: EngineRecord) -> EngineFacts:
    key = record.key
    return EngineFacts(
        graph=key.graph,
        precision=key.precision,
        library=f"{key.flavour} {key.version}",
        architectures=key.architectures,
        size_bytes=record.size_bytes,
        build_s=record.facts.get("build_s"),
    )
