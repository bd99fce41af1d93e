"""TensorRT engines that `dmcodec export --format trt` built for a bundle, found by the records beside them."""

from __future__ import annotations

from pathlib import Path

from dmcodec.bundle import Bundle
from dmcodec.errors import BundleNotFoundError, EngineError
from dmcodec.export.triton.configs import Engine
from dmcodec.tensorrt.library import TENSORRT
from dmcodec.tensorrt.profiles import Profile
from dmcodec.tensorrt.store import EngineRecord, EngineStore, engine_folder

GRAPHS = ("encoder", "decoder")


def find_engines(bundle: Bundle, folder: Path | None, max_batch_size: int) -> dict[str, Engine]:
    """The newest engine of encoder and decoder with a range of shapes that takes batches of 1 to `max_batch_size`.

    Engines of TensorRT-RTX don't count: Triton's backend doesn't load them.

    Args:
        folder: of the engines; the one within the bundle by default.

    Raises:
        BundleNotFoundError: there is none.
    """
    store = EngineStore(engine_folder(bundle.path, folder))
    records, problems = store.records()
    found = {}
    for graph in GRAPHS:
        sha256 = bundle.manifest.graphs[graph].sha256
        own = [r for r in records if (r.key.graph, r.key.graph_sha256, r.key.flavour) == (graph, sha256, TENSORRT)]
        own = [r for r in own if not r.key.options.get("strip_plan")]  # a plan without weights runs nothing
        engine, altered = _newest(store, own, max_batch_size)
        if engine is None:
            more = "; ".join((altered + [problem for problem in problems if f"{graph}-" in problem])[:3])
            raise BundleNotFoundError(
                f"{store.folder}: no TensorRT engine of the {graph} for batches of 1 to {max_batch_size}"
                f"{f' ({more})' if more else ''}; build it on the server's kind of GPU with "
                f"`dmcodec export --format trt --batch 1:1:{max_batch_size}`, or use --platform onnxruntime-tensorrt"
            )
        found[graph] = engine
    return found


def _newest(store: EngineStore, records: list[EngineRecord], max_batch_size: int) -> tuple[Engine | None, list[str]]:
    """The last built of the engines that have such a profile and are unaltered, and what is wrong with newer ones."""
    problems: list[str] = []
    by_age = sorted(records, key=lambda record: (store.folder / record.key.file).stat().st_mtime, reverse=True)
    for record in by_age:
        profile = next((i for i, item in enumerate(record.key.profiles) if _takes(item, max_batch_size)), None)
        if profile is None:
            continue
        try:
            return Engine(store.plan(record), profile, record.key.file, record.key.version), problems
        except EngineError as error:
            problems.append(str(error))
    return None, problems


def _takes(profile: Profile, max_batch_size: int) -> bool:
    if profile.fixed:
        return False  # it has one duration only
    batched = [shapes for shapes in profile.inputs.values() if shapes.min]
    return all(shapes.min[0] <= 1 and shapes.max[0] >= max_batch_size for shapes in batched)
