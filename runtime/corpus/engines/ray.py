"""The engine on Ray: shards go through Ray Data to a pool of actors, each of which holds a codec.

The nodes must see the folder of the output and the audio under the same names, as on a network file system, and have
the same dmcodec. Actors and nodes may die: their shards run again elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import pickle
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmcodec import __version__
from dmcodec.errors import ArgumentError, AudioWarning, ClusterError, DmcodecError, first_line
from dmcodec.files import make_folder
from dmcodec.runtime.codec import Codec
from dmcodec.runtime.corpus.plan import PLAN, REPORTS, Plan, read_plan, shard_name
from dmcodec.runtime.corpus.reports import ShardReport, read_report
from dmcodec.runtime.corpus.shard import run_shard
from dmcodec.temporary import PART

from .engine import CodecOptions, ShardProgress
from .ray_nodes import INSTALL, check_nodes
from .ray_session import connected

# Ray tries for ever; a shard whose actor or node died so often is given up.
TRIES = 5


@dataclass(frozen=True)
class RayEngine:
    """See `Engine`.

    Attributes:
        address: of a cluster, or "auto" for that of this machine; None for the one of RAY_ADDRESS, else a Ray of our
            own, which runs on this machine as long as the work.
        workers: most actors; None for as many as the cluster has room for, also when it grows.
        num_gpus: GPUs of each actor, a part of one for several actors on a GPU; None for 1 where the codec runs on a
            GPU.

    Raises:
        ArgumentError: numbers out of range, or an address of Ray's client.
    """

    address: str | None = None
    workers: int | None = None
    num_gpus: float | None = None

    def __post_init__(self) -> None:
        if self.address is not None and self.address.startswith("ray://"):
            raise ArgumentError(
                f"--address {self.address}: Ray Data does not support its client; run this on a node of the cluster, "
                "with --address auto, or with `ray job submit`"
            )
        if self.workers is not None and self.workers < 1:
            raise ArgumentError(f"--workers {self.workers} must be at least 1")
        if self.num_gpus is not None and not 0 < self.num_gpus < math.inf:
            raise ArgumentError(f"--num-gpus {self.num_gpus:g} must be above 0")

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
        with connected(self.address):
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
        if self.num_gpus is not None:
            raise ArgumentError("--num-gpus: the codec runs on the CPU; add --provider cuda or --backend tensorrt")
        return {"CPU": 1.0}

    def _results(
        self, plan: Plan, pending: Sequence[int], codec: CodecOptions, needs: Mapping[str, float]
    ) -> Generator[tuple[ShardReport | DmcodecError, list[str]], None, None]:
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
            results.append(pickle.dumps((self.run(index), self._told)))
        return pa.table({"result": pa.array(results, pa.binary())})

    def _refuse_other_plan(self) -> None:
        if plan_sha256(self._folder) != self._sha256:
            raise ClusterError(f"{self._folder}: holds another plan on this node; share one folder")

    def _tried(self, plan: Plan, index: int, codec: Codec) -> ShardReport:
        """Run a shard, and count how often that began: a byte for each time, in a file that a new run removes."""
        path = plan.folder / REPORTS / f".{shard_name(index)}.tries{PART}"
        make_folder(path.parent)
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

    def run(self, index: int) -> ShardReport | DmcodecError:
        """Run one shard; return its report or an error."""
        try:
            if self._loaded is None:
                self._refuse_other_plan()
                self._loaded = read_plan(self._folder), self._options.load()
            plan, codec = self._loaded
            # An actor or a node may die after its shard is complete, and before anybody knows.
            return read_report(plan, index) or self._tried(plan, index, codec)
        except DmcodecError as error:
            return error
        except Exception as error:  # noqa: BLE001 - Ray would wrap it in several of its own
            return DmcodecError(f"unexpected {type(error).__name__}: {error} (run it with --engine local --debug)")


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
            f"a node of the cluster has no dmcodec; install version {__version__} on all nodes: {INSTALL}"
        )
    return ClusterError(f"Ray could not do the work ({first_line(error)}); run again, finished shards stay")
