"""TensorRT engines that `dmcodec export --format trt` built for a bundle, found by the records beside them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dmcodec.bundle import Bundle
from dmcodec.errors import BundleNotFoundError
from dmcodec.export.triton.configs import Engine

FOLDER = "engines"
GRAPHS = ("encoder", "decoder")
_FLAVOUR = "tensorrt"  # Triton's backend doesn't load engines of TensorRT-RTX


def find_engines(bundle: Bundle, folder: Path | None, max_batch_size: int) -> dict[str, Engine]:
    """The newest engine of encoder and decoder whose profile takes batches of 1 to `max_batch_size`.

    Args:
        folder: of the engines; the one within the bundle by default.

    Raises:
        BundleNotFoundError: there is none.
    """
    folder = folder or bundle.path / FOLDER
    found = {}
    for graph in GRAPHS:
        candidates, problems = [], []
        for path in folder.glob("*.json"):
            try:
                engine = _engine(path, graph, bundle.manifest.graphs[graph].sha256, max_batch_size)
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
                problems.append(f"{path.name}: {error}")
            else:
                candidates += [(path.stat().st_mtime, engine)] if engine else []
        if not candidates:
            more = f" ({'; '.join(problems[:3])})" if problems else ""
            raise BundleNotFoundError(
                f"{folder}: no TensorRT engine of the {graph} for batches of 1 to {max_batch_size}{more}; build it on "
                f"the server's kind of GPU with `dmcodec export --format trt --batch 1:1:{max_batch_size}`, or use "
                "--platform onnxruntime-tensorrt"
            )
        found[graph] = max(candidates, key=lambda candidate: candidate[0])[1]
    return found


def _engine(record: Path, graph: str, graph_sha256: str, max_batch_size: int) -> Engine | None:
    """The engine of a record; None where it is of another graph, flavour or shape."""
    values = json.loads(record.read_text(encoding="utf-8"))
    key = values["key"] if isinstance(values, dict) and "key" in values else {}
    if key.get("graph") != graph or key.get("graph_sha256") != graph_sha256 or key.get("flavour") != _FLAVOUR:
        return None
    profile = next((i for i, item in enumerate(key["profiles"]) if _takes(item, max_batch_size)), None)
    if profile is None:
        return None
    if Path(values["file"]).name != values["file"]:
        raise ValueError(f"file {values['file']!r} is not a plain name")
    plan = (record.parent / values["file"]).read_bytes()
    if hashlib.sha256(plan).hexdigest() != values["sha256"]:
        raise ValueError("the engine was altered after the build")
    return Engine(plan, profile, values["file"], str(key.get("version", "unknown")))


def _takes(profile: Any, max_batch_size: int) -> bool:
    batches = [(shapes["min"][0], shapes["max"][0]) for shapes in profile["inputs"].values() if shapes["min"]]
    return all(low <= 1 and high >= max_batch_size for low, high in batches)
