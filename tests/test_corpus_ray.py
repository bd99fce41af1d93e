"""The engine on Ray: a cluster whose actors and nodes die, a Ray of our own, and nodes that can't do the work."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from corpora import contents, run, write_corpus
from platforms import linux

from dmcodec import __version__
from dmcodec.errors import ArgumentError, ClusterError, MissingDependencyError
from dmcodec.extras import is_installed
from dmcodec.runtime.corpus.engines.engine import CodecOptions
from dmcodec.runtime.corpus.engines.ray import TRIES, RayEngine, ShardActor, cluster_error, plan_sha256
from dmcodec.runtime.corpus.engines.ray_nodes import _question
from dmcodec.runtime.corpus.plan import PLAN, REPORTS, read_plan

needs_ray = pytest.mark.skipif(not is_installed("ray"), reason='Ray is not installed: pip install "dmcodec[ray]"')
TESTS = Path(__file__).parent
SHARD_S = 1.0
HIDE = """
import os, sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ["HIDDEN_MODULES"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "in", 24)


@pytest.fixture(scope="module")
def expected(corpus: Path) -> Mapping[str, bytes]:
    """What the local engine makes of the corpus."""
    run(corpus, corpus.parent / "local", shard_s=SHARD_S)
    return contents(corpus.parent / "local")


def python(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run Python as a user who has not switched on any reports."""
    path = os.pathsep.join(filter(None, [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH")]))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env={**kept, "PYTHONPATH": path, "HOME": str(home)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@linux
@needs_ray
def test_actors_and_nodes_may_die(corpus: Path, expected: Mapping[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDE)
    done = python(TESTS / "ray_cluster.py", corpus, tmp_path, tmp_path / "hide", home=tmp_path)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert len(facts["killed_at"]) == 2
    assert facts["killed_at"][1] < facts["total_s"] - 2 * SHARD_S
    assert facts["environments"] == ["RAY_USAGE_STATS_ENABLED=0"]
    assert contents(tmp_path / "whole") == expected
    assert facts["refused"].startswith("node ")
    assert f"has no dmcodec; install version {__version__} there" in facts["refused"]


@needs_ray
def test_the_command_starts_a_ray_of_its_own(corpus: Path, expected: Mapping[str, bytes], tmp_path: Path) -> None:
    arguments = ["--shard-s", SHARD_S, "--engine", "ray", "--workers", 1, "--json"]
    done = python("-m", "dmcodec", "tokenize", corpus, "-o", tmp_path / "out", *arguments, home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["failures"] == 0
    assert "INFO" not in done.stderr
    assert contents(tmp_path / "out") == expected


def test_an_actor_gives_up_a_shard_that_kills_it(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(corpus, out, shard_s=SHARD_S)
    plan = read_plan(out)
    actor = ShardActor(str(out), plan_sha256(out), CodecOptions())
    before = contents(out)
    report = actor.run(1)
    assert contents(out) == before, "what is complete is not made again"
    (out / REPORTS / "shard-00001.json").unlink()
    path = out / REPORTS / ".shard-00001.tries.dmcodec-part"
    path.write_bytes(b"." * (TRIES - 1))
    assert str(actor.run(1)) == str(report)
    assert contents(out) == before
    (out / REPORTS / "shard-00001.json").unlink()
    path.write_bytes(b"." * TRIES)
    error = actor.run(1)
    assert isinstance(error, ClusterError)
    assert "shard-00001: the actors that worked on it died 5 times" in str(error)
    assert plan.shards


def test_an_actor_on_a_node_with_another_folder(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out", shard_s=SHARD_S)
    error = ShardActor(str(tmp_path / "out"), "another", CodecOptions()).run(0)
    assert "holds another plan on this node" in str(error)
    missing = ShardActor(str(tmp_path / "none"), "another", CodecOptions()).run(0)
    assert isinstance(missing, ClusterError)


def test_what_nodes_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = _question()
    (tmp_path / PLAN).write_bytes(b"{}")
    sha256 = plan_sha256(tmp_path)
    assert ask(str(tmp_path), sha256, __version__) == ""
    assert "has dmcodec" in ask(str(tmp_path), sha256, "0.0.0")
    assert f"has another {tmp_path}" in ask(str(tmp_path), "0" * 64, __version__)
    assert f"does not see {tmp_path / 'none'}" in ask(str(tmp_path / "none"), sha256, __version__)
    monkeypatch.setitem(sys.modules, "dmcodec", None)
    assert 'pip install "dmcodec[' in ask(str(tmp_path), sha256, __version__)


def test_errors_of_ray_become_one_sentence() -> None:
    lost = cluster_error(RuntimeError("ray::X\nModuleNotFoundError: No module named 'dmcodec'\nmore"))
    assert str(lost).startswith("a node of the cluster has no dmcodec; install version")
    other = cluster_error(RuntimeError("no space\nmore"))
    assert str(other) == "Ray could not do the work (no space); run again, finished shards stay"


def test_options_that_do_not_go_together(corpus: Path, tmp_path: Path) -> None:
    for wrong in ({"workers": 0}, {"num_gpus": 0.0}, {"num_gpus": float("nan")}, {"address": "ray://head:10001"}):
        with pytest.raises(ArgumentError):
            RayEngine(**wrong)
    run(corpus, tmp_path / "out", shard_s=SHARD_S)
    with pytest.raises(ArgumentError, match="--num-gpus: the codec runs on the CPU"):
        next(RayEngine(num_gpus=1).run(read_plan(tmp_path / "out"), [0], CodecOptions(), lambda *_: None))


@needs_ray
def test_an_address_where_nothing_answers(corpus: Path, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out", shard_s=SHARD_S)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"--address {address}: nothing answers there"):
        next(RayEngine(address).run(read_plan(tmp_path / "out"), [0], CodecOptions(), lambda *_: None))


def test_without_ray(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(corpus, tmp_path / "out", shard_s=SHARD_S)
    monkeypatch.setitem(sys.modules, "ray", None)
    importlib.invalidate_caches()
    with pytest.raises(MissingDependencyError, match=r'--engine ray needs ray.*"dmcodec\[ray\]"'):
        next(RayEngine().run(read_plan(tmp_path / "out"), [0], CodecOptions(), lambda *_: None))
