"""The nodes of a Ray cluster, before the work begins: each must have dmcodec and see the folder of the output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmcodec import __version__
from dmcodec.errors import ClusterError

_WAIT_S = 120.0
INSTALL = 'pip install "dmcodec[cpu,corpus,ray]"'


def check_nodes(folder: Path, sha256: str, needs: Mapping[str, float]) -> None:
    """Ask all nodes that have room for an actor whether they can do the work.

    Args:
        folder: of the output.
        sha256: of its plan.json.
        needs: of an actor: CPU or GPU -> how many.

    Raises:
        ClusterError: no node has room, or a node can't do the work; it is named.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and _has_room(node, needs)]
    if not nodes:
        wanted = ", ".join(f"{number:g} {name}" for name, number in needs.items())
        raise ClusterError(f"no node of the cluster has {wanted} for a worker; add one, or change --num-gpus")
    ask = ray.remote(num_cpus=0, max_retries=0)(_question())
    answers = {
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            str(folder), sha256, __version__
        ): node["NodeManagerAddress"]
        for node in nodes
    }
    ready, late = ray.wait(list(answers), num_returns=len(answers), timeout=_WAIT_S)
    for each in [*ready, *late]:
        problem = _problem(each) if each in ready else f"does not answer within {_WAIT_S:g} s"
        if problem:
            raise ClusterError(f"node {answers[each]} of the cluster {problem}")


def _has_room(node: Mapping[str, Any], needs: Mapping[str, float]) -> bool:
    return all(node["Resources"].get(name, 0) >= number for name, number in needs.items())


def _problem(answer: Any) -> str:
    import ray

    try:
        found: str = ray.get(answer)
    except ray.exceptions.RayError as error:
        return f"can't be asked ({type(error).__name__}); look at its logs"
    return found


def _question() -> Any:
    """Return a function that runs where dmcodec may be missing: Ray sends functions within functions as code."""
    version_here, install = "{}.{}".format(*sys.version_info[:2]), INSTALL

    def problem(folder: str, sha256: str, version: str) -> str:
        import hashlib
        import pathlib

        try:
            import dmcodec
        except ImportError:
            return f"has no dmcodec; install version {version} there, for its Python {version_here}: {install}"
        if dmcodec.__version__ != version:
            return f"has dmcodec {dmcodec.__version__}, not {version}; install the same version on all nodes: {install}"
        try:
            found = hashlib.sha256(pathlib.Path(folder, "plan.json").read_bytes()).hexdigest()
        except OSError:
            return f"does not see {folder}; name an --out on a file system that all nodes share"
        return "" if found == sha256 else f"has another {folder}; name an --out on a file system that all nodes share"

    return problem
