"""Outputs that aren't plain new files, several writers, and writers that are killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from platforms import linux, posix

import dmcodec.renames
import dmcodec.temporary
from dmcodec.errors import ArgumentError, OutputError, OutputExistsError
from dmcodec.files import is_special, output_file, output_folder, refuse_existing, refuse_inputs, write_bytes
from dmcodec.temporary import sweep

pytestmark = posix


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_links_stay_and_their_targets_are_written(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for name in ("new", "old"):
        (tmp_path / name).symlink_to(store / name)
    (store / "old").write_bytes(b"old")
    (tmp_path / "loop").symlink_to("loop")
    refuse_existing(tmp_path / "new", force=False)
    with pytest.raises(OutputExistsError):
        refuse_existing(tmp_path / "old", force=False)
    for name in ("new", "old"):
        write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).is_symlink()
        assert (store / name).read_bytes() == b"content"
    with pytest.raises(OutputError, match="leads to itself"):
        write_bytes(tmp_path / "loop", b"content")
    (tmp_path / "folder").symlink_to(store / "deep" / "folder")
    for force in (False, True):
        with output_folder(tmp_path / "folder", force) as temporary:
            (temporary / str(force)).touch()
    assert (tmp_path / "folder").is_symlink()
    assert names(store / "deep" / "folder") == ["True"]
    assert names(store) == ["deep", "new", "old"]


def test_a_file_that_is_replaced_hands_on_its_permissions(tmp_path: Path) -> None:
    for mode in (0o600, 0o444, 0o755):
        path = tmp_path / "out"
        write_bytes(path, b"old")
        path.chmod(mode)
        with output_file(path) as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == mode | 0o600
            temporary.write_bytes(b"new")
        assert (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) == (mode, b"new")


@linux
def test_devices_and_fifos_are_written_through(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe.dmc", list[bytes]()
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link"):
        refuse_existing(path, force=False)
        reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
        reader.start()
        write_bytes(path, b"content")
        reader.join()
    assert got == [b"content"] * 2
    assert is_special(pipe)
    write_bytes("/dev/null", b"content")
    assert is_special(Path("/dev/null"))
    with pytest.raises(OutputError, match="/dev/full: can't be written"):
        write_bytes("/dev/full", b"content")
    with pytest.raises(OutputExistsError, match="is no folder"), output_folder(pipe, force=True):
        pass
    assert names(tmp_path) == ["link", "pipe.dmc"]


@linux
def test_a_fifo_ends_where_the_work_fails(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    got = list[bytes]()
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    with pytest.raises(OutputError), output_file(tmp_path / "pipe") as temporary:
        temporary.write_bytes((tmp_path / "missing").read_bytes())
    reader.join(10)
    assert got == [b""]


def test_a_file_that_is_open_can_be_written_by_its_path(tmp_path: Path) -> None:
    with output_file(tmp_path / "out.bin", replace=False) as temporary:
        write_bytes(temporary, b"content")
        assert len(names(tmp_path)) == 1
    assert (tmp_path / "out.bin").read_bytes() == b"content"


def test_errors_name_the_output_and_not_its_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, output_file(tmp_path / "out.wav") as temporary:
        raise OutputError(f"{temporary}: can't be written in full")
    assert str(caught.value) == f"{tmp_path / 'out.wav'}: can't be written in full"


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "in.wav"
    path.parent.mkdir()
    path.touch()
    os.link(path, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(path)
    for out in (path, tmp_path / "hard", tmp_path / "soft"):
        with pytest.raises(ArgumentError, match="is the input"):
            refuse_inputs(out, None, path)
    with pytest.raises(ArgumentError, match="holds the input"):
        refuse_inputs(path.parent, path)
    refuse_inputs(tmp_path / "new", path)
    refuse_inputs(Path("/dev/null"), Path("/dev/null"))


def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for supported in (True, False):
        monkeypatch.setattr("dmcodec.renames._system_call", (lambda: None) if not supported else _real_call)
        for opened in (output_file(tmp_path / "out", replace=False), output_folder(tmp_path / "out")):
            with pytest.raises(OutputExistsError, match="appeared while"), opened:
                (tmp_path / "out").mkdir()
            assert names(tmp_path) == ["out"]
            (tmp_path / "out").rmdir()
        with output_file(tmp_path / "out", replace=False) as temporary:
            temporary.write_bytes(b"new")
        assert names(tmp_path) == ["out"]
        (tmp_path / "out").unlink()


_real_call = dmcodec.renames._system_call


def test_the_second_writer_of_an_output_is_refused(tmp_path: Path) -> None:
    with output_file(tmp_path / "a") as temporary, output_folder(tmp_path / "b"):
        for opened in (output_file(tmp_path / "a"), output_folder(tmp_path / "b")):
            with pytest.raises(OutputError, match="is being written by another process"), opened:
                pass
        sweep(tmp_path)  # leaves what is being written
        temporary.write_bytes(b"content")
        with output_file(tmp_path / "c") as other:
            other.write_bytes(b"another one")
    assert names(tmp_path) == ["a", "b", "c"]


def test_long_names_with_the_same_start_are_different_outputs(tmp_path: Path) -> None:
    with output_file(tmp_path / ("x" * 250 + "1")), output_file(tmp_path / ("x" * 250 + "2")):
        assert len(names(tmp_path)) == 2


HOLD = """
import sys, time
from pathlib import Path
from dmcodec.cli.signals import unwinding_signals
from dmcodec.files import output_file, output_folder
with unwinding_signals():
    try:
        with output_file(Path(sys.argv[1], "a.dmc")) as a, output_folder(Path(sys.argv[1], "b")) as b:
            a.write_bytes(b"half")
            (b / "half").touch()
            print("ready", flush=True)
            time.sleep(60)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        time.sleep(0.2)  # a second signal comes while this cleans up
"""


@contextmanager
def writer(folder: Path, ignored: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of writing a file and a folder."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)

    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=prepare) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_temporary_file_survives_a_signal(tmp_path: Path, number: int, code: int) -> None:
    with writer(tmp_path) as process:
        assert len(names(tmp_path)) == 3
        process.send_signal(number)
        time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == code
    assert names(tmp_path) == []


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    with writer(tmp_path, ignored=signal.SIGHUP) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


def test_what_a_killed_process_leaves_is_swept(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        sweep(tmp_path)
        assert len(names(tmp_path)) == 3
        with pytest.raises(OutputError, match="another process"), output_file(tmp_path / "a.dmc"):
            pass
        process.kill()
    assert len(names(tmp_path)) == 3
    (tmp_path / ".hidden").touch()
    sweep(tmp_path)
    assert names(tmp_path) == [".hidden"]
    sweep(tmp_path / "missing")


def test_the_next_writer_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        process.kill()
    write_bytes(tmp_path / "a.dmc", b"whole")
    with output_folder(tmp_path / "b") as temporary:
        (temporary / "whole").touch()
    assert names(tmp_path) == ["a.dmc", "b"]
    assert names(tmp_path / "b") == ["whole"]


KILLED = """
import os, sys
from pathlib import Path
import dmcodec.temporary
from dmcodec.files import output_folder
left = int(sys.argv[2])
rename = Path.rename
def counted(*arguments):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return rename(*arguments)
Path.rename = counted
dmcodec.temporary.exchange = lambda first, second: False
with output_folder(Path(sys.argv[1], "best"), force=True) as temporary:
    (temporary / "new").touch()
"""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_folder_that_is_replaced_is_never_lost(tmp_path: Path, renames: int) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "old").touch()
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(renames)], check=False, timeout=60)
    assert done.returncode == (9 if renames < 2 else 0)
    sweep(tmp_path)
    assert names(tmp_path) == ["best"]
    assert names(tmp_path / "best") == (["old"] if renames < 2 else ["new"])


def test_an_interruption_between_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with output_folder(tmp_path / "best") as temporary:
        (temporary / "old").touch()
    monkeypatch.setattr(dmcodec.temporary, "exchange", lambda _first, _second: False)
    rename, calls = Path.rename, list[Path]()

    def interrupted(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "best", force=True) as temporary:
        (temporary / "new").touch()
    assert names(tmp_path) == ["best"]
    assert names(tmp_path / "best") == ["old"]


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "g.wav"
    file.touch()
    for below in (file / "a.dmc", file / "b" / "a.dmc"):
        with pytest.raises(OutputError, match=r"g\.wav is a file, not a folder"):
            write_bytes(below, b"content")
        with pytest.raises(OutputError, match=r"g\.wav is a file, not a folder"), output_folder(below):
            pass
