"""The engine on Ray: shards go through Ray Data to a pool of actors, each of which holds a codec.

The nodes must see the folder of the output and the audio under the same names, as on a network file system, and have
the same dmcodec. Actors and nodes may die: their shards run again elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmcodec import __version__
from dmcodec.cpus import usable_cpus
from dmcodec.errors import ArgumentError, AudioWarning, ClusterError, DmcodecError, first_line
from dmcodec.extras import missing_package
from dmcodec.privacy import switch_off_reports
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.corpus.plan import PLAN, REPORTS, Plan, read_plan, shard_name
from dmcodec.runtime.corpus.reports import ShardReport, read_report
from dmcodec.runtime.corpus.shard import run_shard
from dmcodec.temporary import PART

from .engine import CodecOptions, ShardProgress
from .ray_nodes import check_nodes

# Ray tries for ever; a shard whose actor or node died so often is given up.
TRIES = 5
_STORE_BYTES = 128 << 20  # for a Ray of our own: only numbers and reports go through its store
_INSTALL = 'pip install "dmcodec[cpu,corpus,ray]"'


@dataclass(frozen=True)
class RayEngine:
    """See `Engine`.

    Attributes:
        address: of a cluster, or "auto" for that of this machine; None for the one of RAY_ADDRESS, else a Ray of our
            own, which runs on this machine as long as the work.
        workers: most actors; None for as many as the cluster has room for, also when it grows.
        num_gpus: GPUs of each actor, a part of one for several actors on a GPU; None for 1 where the codec runs on a
            GPU.
    """

    address: str | None = None
    workers: int | None = None
    num_gpus: float | None = None

    def run(
        self, plan: Plan, pending: Sequence[int], codec: CodecOptions, progress: ShardProgress
    ) -> Iterator[ShardReport]:
        """See `Engine`.

        Raises:
            MissingDependencyError: without Ray.
            ArgumentError: GPUs for a codec that runs on the CPU.
            ClusterError: no cluster at that address, nodes that can't do the work, or a shard whose actors keep dying.
        """
        needs = self._needs(codec)
        plan = replace(plan, folder=plan.folder.absolute())
        codec = replace(codec, engine_cache=codec.engine_cache.absolute() if codec.engine_cache else None)
        with _connected(self.address), _quiet():
            check_nodes(plan.folder, plan_sha256(plan.folder), needs)
            with contextlib.closing(self._results(plan, pending, codec, needs)) as results:
                for result, told in results:
                    for message in told:
                        warnings.warn(message, AudioWarning, stacklevel=2)
                    if isinstance(result, DmcodecError):
                        raise result
                    progress(result.index, plan.shards[result.index].audio_s, len(result.failures))
                    yield result

    def _needs(self, codec: CodecOptions) -> Mapping[str, float]:
        """Return what an actor takes of a node: CPU or GPU -> how many."""
        if not codec.on_cpu:
            return {"GPU": 1.0 if self.num_gpus is None else self.num_gpus}
        if self.num_gpus:
            raise ArgumentError("--num-gpus: the codec runs on the CPU; add --provider cuda or --backend tensorrt")
        return {"CPU": 1.0}

    def _results(
        self, plan: Plan, pending: Sequence[int], codec: CodecOptions, needs: Mapping[str, float]
    ) -> Iterator[tuple[ShardReport | DmcodecError, list[str]]]:
        import ray

        most = min(self.workers or len(pending), len(pending))
        room = sum(ray.cluster_resources().get(name, 0) // number for name, number in needs.items())
        shards = ray.data.from_items([{"shard": index} for index in pending], override_num_blocks=len(pending))
        done = shards.map_batches(
            ShardActor,
            fn_constructor_args=(str(plan.folder), plan_sha256(plan.folder), codec),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=max(1, min(most, int(room))), max_size=most),
            num_cpus=needs.get("CPU"),
            num_gpus=needs.get("GPU"),
        )
        try:
            for batch in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
                yield from (pickle.loads(each) for each in batch.column("result").to_pylist())
        except ray.exceptions.RayError as error:
            raise cluster_error(error) from error


class ShardActor:
    """Runs shards with a codec of its own, which it loads with the first one; in a process on a node.

    Args:
        folder: of the output.
        sha256: of its plan.
        codec: how the codec is loaded.
    """

    def __init__(self, folder: str, sha256: str, codec: CodecOptions) -> None:
        self._folder, self._sha256, self._options = Path(folder), sha256, codec
        self._loaded: tuple[Plan, Codec] | None = None
        self._told: list[str] = []  # warnings about audio
        warnings.simplefilter("always", AudioWarning)
        warnings.showwarning = self._show

    def __call__(self, batch: Any) -> Any:
        """Return a table with one result for each number in the column `shard`: a report or an error, and warnings."""
        import pyarrow as pa

        results = []
        for index in batch.column("shard").to_pylist():
            self._told.clear()
            results.append(pickle.dumps((self._run(index), self._told)))
        return pa.table({"result": pa.array(results, pa.binary())})

    def _tried(self, plan: Plan, index: int, codec: Codec) -> ShardReport:
        """Run a shard, and count how often that began: a byte for each time, in a file that a new run removes."""
        path = plan.folder / REPORTS / f".{shard_name(index)}.tries{PART}"
        with path.open("ab") as file:
            file.write(b".")
            tries = file.tell()
        if tries > TRIES:
            raise ClusterError(
                f"{shard_name(index)}: the actors that worked on it died {TRIES} times; out of memory? use fewer "
                "--workers on larger nodes"
            )
        report = run_shard(plan, index, codec, spool=self._options.spool)
        path.unlink(missing_ok=True)
        return report

    def _show(self, message: Warning | str, category: type[Warning], *_place: Any, **_more: Any) -> None:
        if issubclass(category, AudioWarning):
            self._told.append(str(message))

    def _run(self, index: int) -> ShardReport | DmcodecError:
        try:
            if self._loaded is None:
                if plan_sha256(self._folder) != self._sha256:
                    raise ClusterError(f"{self._folder}: holds another plan on this node; share one folder")
                self._loaded = read_plan(self._folder), self._options.load()
            plan, codec = self._loaded
            # An actor or a node may die after its shard is complete, and before anybody knows.
            return read_report(plan, index) or self._tried(plan, index, codec)
        except DmcodecError as error:
            return error


def plan_sha256(folder: Path) -> str:
    """Return the SHA-256 of plan.json, or "" where it can't be read."""
    try:
        return hashlib.sha256((folder / PLAN).read_bytes()).hexdigest()
    except OSError:
        return ""


def cluster_error(error: BaseException) -> ClusterError:
    """Return what an error of Ray means, in one sentence."""
    text = str(error)
    if "No module named 'dmcodec" in text:
        return ClusterError(
            f"a node of the cluster has no dmcodec; install version {__version__} on all nodes: {_INSTALL}"
        )
    return ClusterError(f"Ray could not do the work ({first_line(error)}); run again, finished shards stay")


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start one here; leave a connection that is there already as it is."""
    switch_off_reports()
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise missing_package(error, "--engine ray", "ray") from None
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise ArgumentError(
            f"--address {address}: start this on a node of the cluster, with --address auto, or with `ray job submit`"
        )
    own = {"num_cpus": usable_cpus(), "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True,
            **(own if address == "local" else {}),
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(
            f"--address {address}: no Ray cluster is there that takes this machine ({first_line(error)}); start one "
            "with `ray start --head`, or leave --address out"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ray Data tells of its progress off the terminal; errors come as exceptions."""
    import ray

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
