"""`dmcodec tokenize` as a command: output, exit codes, and processes that are killed at any moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from corpora import DyingCodec, UnloadableCodec, contents, reasons, run, table, write_clip, write_corpus
from platforms import linux, posix

from dmcodec.errors import BackendError
from dmcodec.runtime.corpus.engines import local
from dmcodec.runtime.corpus.engines.engine import CodecOptions
from dmcodec.runtime.corpus.plan import read_plan
from dmcodec.runtime.corpus.run import TokenizeOptions, tokenize
from dmcodec.runtime.corpus.sources.find import find_corpus

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty clips; don't alter it."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "speech", 60)


@pytest.fixture(scope="module")
def straight(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The output of one run in this process, without an interruption."""
    out = tmp_path_factory.mktemp("straight") / "out"
    run(corpus, out)
    return contents(out)


def start(corpus: Path, out: Path, workers: int, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "dmcodec", "tokenize", str(corpus), "-o", str(out), "--shard-s", "2", "--workers",
        str(workers), *more,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def said(errors: str) -> list[str]:
    """What stderr holds, but for progress."""
    return [line for line in errors.splitlines() if not line.startswith(("tokenize, ", "plan, "))]


def has_ended(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def reports(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "reports").glob("shard-*.json"))


def has_come_to(out: Path, count: int, process: subprocess.Popen[str]) -> bool:
    return len(reports(out)) >= count or process.poll() is not None


def children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, path.read_text().split())
    return found


@linux
def test_killed_anywhere_the_same_command_goes_on(corpus: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    """Killed with two workers, and again with one."""
    out = tmp_path / "out"
    kept: dict[str, int] = {}
    for workers in (2, 1):
        before = len(reports(out))
        with start(corpus, out, workers) as process:
            wait_for(partial(has_come_to, out, before + 2, process))
            started = children(process.pid)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        for pid in started:  # no orphan goes on
            wait_for(partial(has_ended, pid))
        assert before + 2 <= len(reports(out)) < len(read_plan(out).shards)
        now = {name: (out / "tokens" / name.replace("json", "parquet")).stat().st_mtime_ns for name in reports(out)}
        assert kept.items() <= now.items()
        kept = now
    run(corpus, out)
    assert contents(out) == straight
    assert all((out / "tokens" / name.replace("json", "parquet")).stat().st_mtime_ns == kept[name] for name in kept)


@posix
def test_a_worker_that_is_killed_is_replaced(
    corpus: Path, straight: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers are killed in the middle of a shard, which may be the same one; the run goes on by itself."""
    monkeypatch.setattr(local, "_TRIES", 3)
    out = tmp_path / "out"
    killed: set[int | None] = set()

    def watch(_state: object) -> None:
        for process in multiprocessing.active_children():
            if len(killed) < 2 and len(reports(out)) > len(killed):
                os.kill(process.pid or 0, signal.SIGKILL)
                killed.add(process.pid)

    tokenize(find_corpus([str(corpus)]), out, CodecOptions(), local.LocalEngine(2), TokenizeOptions(shard_s=2.0), watch)
    assert len(killed) == 2
    assert contents(out) == straight


@posix
def test_a_shard_that_kills_its_processes_is_left_out(tmp_path: Path) -> None:
    for index in range(4):
        write_clip(tmp_path / "in" / f"{index}.wav", DyingCodec.DEADLY_S if index == 1 else 0.5)
    options, corpus = TokenizeOptions(shard_s=0.5), find_corpus([str(tmp_path / "in")])
    message = r"shard-00001: the process that worked on it ended 2 times, with exit code -9; out of memory\?"
    with pytest.raises(BackendError, match=message):
        tokenize(corpus, tmp_path / "out", DyingCodec(), local.LocalEngine(2), options)
    assert reports(tmp_path / "out") == [f"shard-0000{index}.json" for index in (0, 2, 3)]
    run(tmp_path / "in", tmp_path / "out", shard_s=0.5)
    assert len(table(tmp_path / "out")) == 4


@posix
def test_processes_that_cannot_start_end_the_run(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_STARTS", 2)
    engine, options = local.LocalEngine(2), TokenizeOptions(shard_s=2.0)
    with pytest.raises(BackendError, match="processes of --workers end while they start, 2 times, with exit code -9"):
        tokenize(find_corpus([str(corpus)]), tmp_path / "out", UnloadableCodec(), engine, options)


@posix
def test_ctrl_c_says_how_to_go_on(corpus: Path, straight: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(corpus, out, 2, "--json") as process:
        wait_for(lambda: reports(out) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate()
    assert process.returncode == 130
    found = json.loads(text)
    assert found["interrupted"]
    assert found["shards_done"] == len(reports(out)) < found["shards"]
    assert (
        f"interrupted: {found['shards_done']} of {found['shards']} shards are done; the same command goes on" in errors
    )
    assert not [path for path in out.rglob("*") if ".dmcodec-" in path.name]
    run(corpus, out)
    assert contents(out) == straight


def test_a_bad_clip_gives_exit_code_1_and_is_named(call: Call, tmp_path: Path) -> None:
    write_clip(tmp_path / "in" / "good.wav", 0.5)
    (tmp_path / "in" / "bad.wav").write_bytes(b"")
    (tmp_path / "in" / "notes.txt").write_text("")
    code, out, errors = call("tokenize", tmp_path / "in", "-o", tmp_path / "out", "--workers", 1)
    assert code == 1
    assert out.startswith(f"{tmp_path}/out: 1 clips, 0.00 h in 1 shards, ")
    assert said(errors) == [
        f"note: left out: 1 (another suffix: 1 .txt): {tmp_path}/in/notes.txt",
        f"error: bad.wav: {tmp_path}/in/bad.wav: is empty, and can't be read as audio",
        f"error: 1 of 2 clips failed; {tmp_path}/out/failures.parquet says why",
    ]
    code, text, errors = call("tokenize", tmp_path / "in", "-o", tmp_path / "out", "--json")
    found = json.loads(text)
    assert code == 1
    assert (found["clips"], found["failures"], found["shards_done"], found["xrt"]) == (1, 1, 1, None)
    assert [each["id"] for each in found["failed"]] == ["bad.wav"]
    assert [Path(each["path"]).name for each in found["left_out"]] == ["notes.txt"]
    code, out, errors = call("tokenize", tmp_path / "in", "-o", tmp_path / "x", "--max-failures", 0, "--workers", 1)
    assert (code, out) == (1, "")
    assert "error: 1 clips failed, more than --max-failures 0; 0 of 1 shards are done and stay" in errors
    (tmp_path / "in" / "bad.wav").unlink()
    assert call("tokenize", tmp_path / "in", "-o", tmp_path / "out", "--force", "--codes", "packed")[0] == 0
    assert not (tmp_path / "out" / "failures.parquet").exists()


def test_a_dry_run_writes_nothing(call: Call, corpus: Path, tmp_path: Path) -> None:
    code, text, _ = call("tokenize", corpus, "-o", tmp_path / "out", "--dry-run", "--json", "--shard-s", 2)
    found = json.loads(text)
    assert code == 0
    assert found["clips"] == 60
    assert found["plan"]["items"] == 60
    assert found["shards"] == len(found["plan"]["shards"])
    assert found["estimated_s"] > 0
    assert found["hours"] == pytest.approx(found["plan"]["audio_s"] / 3600)
    code, text, _ = call("tokenize", corpus, "-o", tmp_path / "out", "--dry-run", "--workers", 3)
    assert [line.split()[0] for line in text.splitlines()] == ["clips", "audio", "shards", "output", "time"]
    assert "with 3 workers at xRT" in text
    assert not (tmp_path / "out").exists()


def test_info_shows_an_output(call: Call, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "a.wav", 1.0)
    (tmp_path / "in" / "b.wav").write_bytes(b"")
    run(tmp_path / "in", tmp_path / "out", n_q=2)
    code, text, errors = call("info", tmp_path / "out", "--json")
    found = json.loads(text)
    assert (code, errors) == (0, "")
    assert (found["clips"], found["failures"], found["shards"], found["n_q"]) == (1, 1, 1, 2)
    assert found["audio_s"] == 1.0
    assert [level["level"] for level in found["levels"]] == [0, 1]
    assert all(0 < level["unused_entries"] < 1024 for level in found["levels"])
    lines = call("info", tmp_path / "out")[1].splitlines()
    assert any(line.startswith("level 1") and "bits of entropy" in line for line in lines)
    (tmp_path / "out" / "plan.json").write_text("{}")
    assert "is not the plan of `dmcodec tokenize`" in call("info", tmp_path / "out")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "csv"), "--format 'csv' is not known; use one of parquet"),
        (("--codes", "text"), "--codes 'text' is not known; use one of lists, packed"),
        (("--engine", "spark"), "--engine 'spark' is not known; use one of local"),
        (("--workers", "0"), "--workers 0 must be at least 1"),
        (("--force", "--keep-plan"), "--force and --keep-plan exclude each other"),
        (("--keep-plan",), "holds no plan yet"),
        (("--n-q", "9"), "n_q"),
        (("--spool", "/nowhere"), "no such folder"),
        (("-",), "stdin can be read once only"),
    ],
)
def test_a_wrong_call_is_one_line(
    call: Call, corpus: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, errors = call("tokenize", corpus, "-o", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert message in errors
    assert len(said(errors)) == 1
    assert not (tmp_path / "out").exists()


@posix
def test_one_process_at_a_time(call: Call, corpus: Path, tmp_path: Path) -> None:
    from dmcodec.files import locked

    with locked(tmp_path / "out" / ".lock"):
        code, _, errors = call("tokenize", corpus, "-o", tmp_path / "out")
    assert code == 1
    assert errors == f"error: {tmp_path}/out: another process works there; wait until it ends\n"
    assert not (tmp_path / "out" / "plan.json").exists()


def test_a_warning_of_a_clip_reaches_stderr_once(call: Call, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    for index in range(3):
        wave = np.random.default_rng(index).normal(0, 0.1, 8000)
        path = tmp_path / "in" / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.stack([wave, -wave], 1), 16000, "FLOAT")
    code, _, errors = call("tokenize", tmp_path / "in", "-o", tmp_path / "out", "--workers", 2, "--shard-s", "0.5")
    assert code == 0
    assert errors.count("channels cancel each other") == 3
    assert len(table(tmp_path / "out")) == 3
    assert not (tmp_path / "out" / "failures.parquet").exists() or reasons(tmp_path / "out") == {}
