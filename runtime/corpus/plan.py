"""The plan of a run: which clips make which shard, and all that the output depends on. It is made once, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dmcodec.errors import DataError, DataNotFoundError, detail
from dmcodec.runtime.corpus.outputs.writer import COLUMN_TYPES, WriterSettings

from .items import Item

PLAN, ITEMS, TOKENS, REPORTS, FAILURES = "plan.json", "plan", "tokens", "reports", "failures.parquet"
FORMAT, FORMAT_VERSION = "dmcodec-corpus-plan", 1


@dataclass(frozen=True)
class Settings:
    """What the output depends on, besides the clips.

    Attributes:
        format: of the output, a name in `dmcodec.runtime.corpus.outputs.FORMATS`.
        codes: "lists" or "packed": how the Parquet format stores codes.
        model_id: 16 hex digits that identify the weights.
        precision: of the bundle.
        backend: what runs the graphs, and where: "onnxruntime cpu" for example.
        sample_rate, hop_length, codebook_size: of the codec.
        n_q: levels that are kept.
        layout: of flattened ids, as JSON values of a `TokenLayout`; None for formats that hold codes.
    """

    format: str
    codes: str
    model_id: str
    precision: str
    backend: str
    sample_rate: int
    hop_length: int
    codebook_size: int
    n_q: int
    layout: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Shard:
    """A part of the corpus that is done or not done.

    Attributes:
        items: number of its clips.
        audio_s: their length in seconds, estimated.
        size_bytes: of their audio as it is stored.
        sha256: of its list of items.
    """

    items: int
    audio_s: float
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Plan:
    """A plan, in the folder of the output.

    Attributes:
        folder: of the output. It is no part of plan.json.
        inputs: the arguments that name the corpus.
        settings: see there.
        columns: name -> type (of COLUMN_TYPES) of the passed-through columns, in their order.
        corpus_sha256: of all items, before shards were made; another one means another corpus.
        shards: see there; shard i has the list `plan/shard-0000i.jsonl`.
    """

    folder: Path
    inputs: tuple[str, ...]
    settings: Settings
    columns: Mapping[str, str]
    corpus_sha256: str
    shards: tuple[Shard, ...]

    @property
    def num_items(self) -> int:
        """Number of clips."""
        return sum(shard.items for shard in self.shards)

    @property
    def audio_s(self) -> float:
        """Length of all clips in seconds, estimated."""
        return sum(shard.audio_s for shard in self.shards)

    @property
    def size_bytes(self) -> int:
        """Bytes of all audio as it is stored."""
        return sum(shard.size_bytes for shard in self.shards)

    @property
    def writer_settings(self) -> WriterSettings:
        """What the writers of shards are given."""
        values = {name: value for name, value in asdict(self.settings).items() if name not in ("format", "backend")}
        return WriterSettings(columns=self.columns, **values)

    def items(self, index: int) -> list[Item]:
        """Read the clips of a shard, in their order.

        Raises:
            DataNotFoundError: the list is missing.
            DataError: the list was altered.
        """
        path = self.folder / ITEMS / f"{shard_name(index)}.jsonl"
        data = _read(path)
        if hashlib.sha256(data).hexdigest() != self.shards[index].sha256:
            raise DataError(f"{path}: was altered after the plan was made; plan again with --force")
        return [Item.from_json(json.loads(line)) for line in data.splitlines()]

    def to_dict(self) -> dict[str, Any]:
        """Return plan.json."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "inputs": list(self.inputs),
            "settings": asdict(self.settings),
            "columns": dict(self.columns),
            "corpus_sha256": self.corpus_sha256,
            "items": self.num_items,
            "audio_s": self.audio_s,
            "size_bytes": self.size_bytes,
            "shards": [asdict(shard) for shard in self.shards],
        }


def shard_name(index: int) -> str:
    """Return the name of a shard's files, without their suffix."""
    return f"shard-{index:05d}"


def item_lines(items: Iterable[Item]) -> bytes:
    """Return the list of a shard: a line of JSON for each clip."""
    return b"".join(json.dumps(item.to_json()).encode() + b"\n" for item in items)


def plan_json(plan: Plan) -> bytes:
    """Return the bytes of plan.json."""
    return json.dumps(plan.to_dict(), indent=1).encode() + b"\n"


def read_plan(folder: Path) -> Plan:
    """Read the plan in the folder of an output.

    Raises:
        DataNotFoundError: the folder holds no plan.
        DataError: it is damaged, or of a newer version.
    """
    path = folder / PLAN
    data = _read(path)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged ({detail(error)}); plan again with --force") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise DataError(f"{path}: is not the plan of `dmcodec tokenize`; name another folder")
    version = body.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise DataError(f"{path}: format version {version} is newer than this dmcodec reads; upgrade dmcodec")
    try:
        return _plan(folder, body)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is damaged ({type(error).__name__}: {detail(error)}); plan again with --force"
        ) from None


def _plan(folder: Path, body: Mapping[str, Any]) -> Plan:
    columns = dict(body["columns"])
    if not set(columns.values()) <= set(COLUMN_TYPES):
        raise ValueError("columns of an unknown type")
    settings = Settings(**{each.name: body["settings"][each.name] for each in fields(Settings)})
    shards = tuple(Shard(**{each.name: shard[each.name] for each in fields(Shard)}) for shard in body["shards"])
    return Plan(folder, tuple(body["inputs"]), settings, columns, str(body["corpus_sha256"]), shards)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({detail(error)})") from None
