"""The report of a shard: what is written when its files are in place, and marks it as done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.errors import DataError, detail

from .plan import REPORTS, TOKENS, Plan, shard_name


@dataclass(frozen=True)
class Failure:
    """A clip without tokens. `source`: what its audio was read from. `reason`: one line."""

    id: str
    source: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return JSON values."""
        return {"id": self.id, "source": self.source, "reason": self.reason}


@dataclass(frozen=True)
class ShardReport:
    """What a shard holds. It follows from the clips alone: no time, no machine.

    Attributes:
        index: of the shard.
        clips: with tokens.
        num_samples: of these clips, at the codec's rate.
        frames: of these clips.
        files: name in the folder `tokens` -> bytes. Of a folder, the bytes of all files in it.
        code_counts: (n_q, codebook_size) int64: how often each entry is used.
        failures: clips without tokens, in the order of the items.
    """

    index: int
    clips: int
    num_samples: int
    frames: int
    files: Mapping[str, int]
    code_counts: NDArray[np.int64]
    failures: tuple[Failure, ...]

    def to_json(self) -> bytes:
        """Return the bytes of the report's file."""
        body = {
            "shard": self.index,
            "clips": self.clips,
            "num_samples": self.num_samples,
            "frames": self.frames,
            "files": dict(self.files),
            "failures": [failure.to_dict() for failure in self.failures],
            "code_counts": self.code_counts.tolist(),
        }
        return json.dumps(body).encode() + b"\n"


def report_path(folder: Path, index: int) -> Path:
    """Return where the report of a shard lies."""
    return folder / REPORTS / f"{shard_name(index)}.json"


def read_report(plan: Plan, index: int) -> ShardReport | None:
    """Return the report of a shard that is done; None where it is not done, or a file of it is gone or cut short.

    Raises:
        DataError: the report can't be read.
    """
    path = report_path(plan.folder, index)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({detail(error)})") from None
    try:
        report = _report(json.loads(data), plan)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None  # damaged: the shard runs again
    sizes = {name: stored_bytes(plan.folder / TOKENS / name) for name in report.files}
    return report if sizes == dict(report.files) and report.index == index else None


def _report(body: Mapping[str, Any], plan: Plan) -> ShardReport:
    counts = np.array(body["code_counts"], np.int64)
    if counts.shape != (plan.settings.n_q, plan.settings.codebook_size):
        raise ValueError("counts of another model")
    failures = tuple(Failure(each["id"], each["source"], each["reason"]) for each in body["failures"])
    return ShardReport(
        int(body["shard"]), int(body["clips"]), int(body["num_samples"]), int(body["frames"]), dict(body["files"]),
        counts, failures,
    )  # fmt: skip


def stored_bytes(path: Path) -> int | None:
    """Return the bytes of a file, or of all files in a folder; None where there is none."""
    try:
        if path.is_dir():
            return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        return path.stat().st_size
    except OSError:
        return None
