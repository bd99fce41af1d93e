"""A Ray cluster of two nodes on this machine, on which a corpus is tokenized while an actor and a node are killed.

Run as a program, since Ray changes its process: CORPUS OUT HIDE. It prints what happened as JSON. HIDE is a
folder whose `sitecustomize` hides dmcodec.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmcodec.errors import ClusterError
from dmcodec.privacy import RAY
from dmcodec.runtime.corpus.engines.engine import CodecOptions
from dmcodec.runtime.corpus.engines.ray import RayEngine
from dmcodec.runtime.corpus.run import State, TokenizeOptions, tokenize
from dmcodec.runtime.corpus.sources.find import find_corpus

SHARD_S = 1.0
_STORE_BYTES = 80 << 20
# A node that is gone is noticed after two seconds; by default it takes a quarter of a minute.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


@dataclasses.dataclass
class Killer:
    """Kills one actor when some shards are done, and a node a little later."""

    cluster: Any
    node: Any
    killed_at: list[float] = dataclasses.field(default_factory=list)  # seconds that were done
    environments: set[str] = dataclasses.field(default_factory=set)  # what Ray's servers have in RAY

    def watch(self, state: State) -> None:
        if not self.killed_at and state.run_s > 0:
            found = list(children(os.getpid()))
            servers = [pid for pid, title in found if "gcs_server " in title or "raylet/raylet " in title]
            self.environments |= {variable(pid) for pid in servers}
            actor = next(pid for pid, title in found if "ShardActor" in title)
            os.kill(actor, signal.SIGKILL)
            self.killed_at.append(state.done_s)
        elif len(self.killed_at) == 1 and state.done_s > self.killed_at[0]:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.killed_at.append(state.done_s)


def children(pid: int) -> Iterator[tuple[int, str]]:
    """Yield the processes below a process, with their titles."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child), Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            yield from children(int(child))


def variable(pid: int) -> str:
    found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((each.decode() for each in found if each.startswith(RAY.encode())), "none")


def main(corpus: str, out: Path, hide: str) -> None:
    from ray.cluster_utils import Cluster

    common = {"num_cpus": 1, "object_store_memory": _STORE_BYTES}
    head = {**common, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    killer = Killer(cluster, cluster.add_node(**common))
    engine, codec, options = RayEngine(cluster.address), CodecOptions(), TokenizeOptions(shard_s=SHARD_S)
    summary = tokenize(find_corpus([corpus]), out / "whole", codec, engine, options, killer.watch)
    cluster.add_node(**common, env_vars={"PYTHONPATH": hide, "HIDDEN_MODULES": "dmcodec"})
    cluster.wait_for_nodes()
    refused = ""
    try:
        tokenize(find_corpus([corpus]), out / "refused", codec, engine, options)
    except ClusterError as error:
        refused = str(error)
    facts = {
        "shards": summary.shards_done, "total_s": summary.plan.audio_s, "killed_at": killer.killed_at,
        "environments": sorted(killer.environments), "refused": refused,
    }  # fmt: skip
    sys.stdout.write(json.dumps(facts))
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
