"""Outputs are whole or not there, whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from platforms import linux, posix

from dmcodec.audio import write_audio
from dmcodec.errors import AudioFileNotFoundError, OutputError, OutputExistsError
from dmcodec.files import output_file, output_folder, refuse_existing, write_bytes
from dmcodec.tokens import Tokens

TOKENS = Tokens(np.zeros((8, 5000), int), 5000 * 320, 16000, 320, 1024)


def write_into_file(path: Path) -> AbstractContextManager[Path]:
    return output_file(path)


def write_into_folder(path: Path) -> AbstractContextManager[Path]:
    return output_folder(path, force=True)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: names and contents."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def fill(temporary: Path, content: bytes) -> None:
    (temporary / "graph.onnx" if temporary.is_dir() else temporary).write_bytes(content)


def existing(path: Path, opened: Callable[[Path], AbstractContextManager[Path]]) -> None:
    with opened(path) as temporary:
        fill(temporary, b"the old one")


BOTH = pytest.mark.parametrize("opened", [write_into_file, write_into_folder])


@BOTH
def test_the_output_appears_whole_at_the_end(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    target = tmp_path / "new" / "deeper" / "out"
    with opened(target) as temporary:
        fill(temporary, b"content")
        assert not target.exists()
    content = target.read_bytes() if target.is_file() else (target / "graph.onnx").read_bytes()
    assert content == b"content"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def fail_while_writing(opened: AbstractContextManager[Path], error: BaseException) -> None:
    with opened as temporary:
        fill(temporary, b"half of the new one")
        raise error


@BOTH
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
@pytest.mark.parametrize("was_there", [False, True])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Path]], error: BaseException, was_there: bool
) -> None:
    target = tmp_path / "out.dmc"
    if was_there:
        existing(target, opened)
    before = tree(tmp_path)
    with pytest.raises(type(error)):
        fail_while_writing(opened(target), error)
    assert tree(tmp_path) == before


@BOTH
def test_an_operating_system_error_becomes_one_output_error(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with pytest.raises(OutputError, match=r"out\.dmc: can't be written \(No space left on device\)"):
        fail_while_writing(opened(tmp_path / "out.dmc"), OSError(28, "No space left on device"))
    assert tree(tmp_path) == {}


@BOTH
def test_an_error_of_our_own_stays_what_it_is(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with pytest.raises(AudioFileNotFoundError), opened(tmp_path / "out.dmc"):
        raise AudioFileNotFoundError("in.wav: no such audio file")


def unwritable_paths(folder: Path) -> list[Path]:
    (folder / "file").write_bytes(b"a file, not a folder")
    names = ["file/out.wav", "file/deeper/out.wav", "x" * 300 + ".wav", "y" * 5000 + ".wav"]
    return [*(folder / name for name in names), Path("/proc/out.wav"), Path("/proc/new/out.wav")]


@linux
@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_bytes(path, b"x"),
        lambda path: write_audio(path, np.zeros(10, np.float32), 16000),
        TOKENS.save,
        lambda path: write_into_folder(path).__enter__(),
    ],
    ids=["bytes", "audio", "tokens", "folder"],
)
def test_a_place_that_cant_be_written_to_is_one_error(
    tmp_path: Path, index: int, write: Callable[[Path], object]
) -> None:
    path = unwritable_paths(tmp_path)[index]
    with pytest.raises(OutputError) as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        write_bytes(tmp_path, b"x")


@BOTH
@pytest.mark.parametrize("name", ["n" * 251 + ".dmc", "😀" * 62 + ".dmc", "é" * 125 + ".dmc", ".dmc", "a.b.c"])
def test_any_name_that_the_file_system_takes(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Path]], name: str
) -> None:
    for content in (b"first", b"second"):
        with opened(tmp_path / name) as temporary:
            fill(temporary, content)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_is_there_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    existing(target, write_into_folder)
    with pytest.raises(OutputExistsError, match="force"), output_folder(target):
        pytest.fail("the body must not run")
    assert tree(target) == {"graph.onnx": b"the old one"}
    with output_folder(target, force=True) as temporary:
        (temporary / "other").write_bytes(b"new")
    assert tree(tmp_path) == {"bundle": None, "bundle/other": b"new"}


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"x")
    with pytest.raises(OutputExistsError), output_folder(tmp_path / "precious", force=True):
        pytest.fail("the body must not run")
    assert tree(tmp_path) == {"precious": b"x"}


def test_refuse_existing(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "new", force=False)
    refuse_existing(tmp_path, force=True)
    with pytest.raises(OutputExistsError, match=tmp_path.name):
        refuse_existing(tmp_path, force=False)
    assert issubclass(OutputExistsError, FileExistsError)


@BOTH
def test_rights_are_those_of_any_new_file(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    before = os.umask(0o027)
    try:
        existing(tmp_path / "out", opened)
    finally:
        os.umask(before)
    expected = 0o750 if (tmp_path / "out").is_dir() else 0o640
    assert (tmp_path / "out").stat().st_mode & 0o777 == expected


def run_together(work: Callable[[int], object], count: int) -> list[BaseException]:
    """Runs `work(i)` in `count` threads that switch as often as they can; returns what they raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(count)

    def guarded(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return errors


def test_writers_to_one_path_end_with_one_whole_file_and_the_umask_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    umask = os.umask

    def slow_umask(mask: int) -> int:
        """The umask is read by setting it: here other threads surely come between."""
        old = umask(mask)
        time.sleep(0.0005)
        return old

    before = umask(0o022)
    monkeypatch.setattr(os, "umask", slow_umask)
    contents = [bytes([index]) * (100_000 + index) for index in range(8)]
    target = tmp_path / "out.dmc"

    def write_often(index: int) -> None:
        for _ in range(30):
            write_bytes(target, contents[index])
            assert target.read_bytes() in contents

    try:
        assert run_together(write_often, 8) == []
        assert umask(0o022) == 0o022
    finally:
        umask(before)
    assert target.read_bytes() in contents
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["out.dmc"]


# On a disk that fills up a write fails half way; a limit on the size of files does the same.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from dmcodec.errors import OutputError
{prepare}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    {write}
except OutputError as error:
    print(error)
"""
SAVE_TOKENS = (
    "from dmcodec.tokens import Tokens; tokens = Tokens(np.zeros((8, 5000), int), 1600000, 16000, 320, 1024)",
    "tokens.save(Path(sys.argv[1]))",
)
WRITE_AUDIO = (
    "from dmcodec.audio import write_audio; x = np.random.default_rng(0).normal(0, .1, 99999).astype('f4')",
    "write_audio(Path(sys.argv[1]), x, 16000)",
)
EXPORT = (
    "from dmcodec.nn import DMCodec; from dmcodec.export import export_bundle; from dmcodec.config import CodecConfig\n"
    "codec = DMCodec.seeded(CodecConfig(n_filters=2, dimension=8, strides=(4, 2), codebook_size=16, n_q=2))",
    "export_bundle(codec, Path(sys.argv[1]), force=True)",
)


@posix
@pytest.mark.parametrize(
    ("name", "script", "limit", "was_there"),
    [
        ("clip.dmc", SAVE_TOKENS, 4096, False),
        ("clip.dmc", SAVE_TOKENS, 4096, True),
        ("clip.dmc", SAVE_TOKENS, 0, False),
        ("clip.wav", WRITE_AUDIO, 4096, True),
        ("clip.flac", WRITE_AUDIO, 4096, False),
        ("bundle", EXPORT, 6000, True),
        ("bundle", EXPORT, 0, False),
    ],
)
def test_a_full_disk_is_one_error_and_leaves_nothing(
    tmp_path: Path, name: str, script: tuple[str, str], limit: int, was_there: bool
) -> None:
    target = tmp_path / name
    if was_there:
        existing(target, write_into_file if target.suffix else write_into_folder)
    before = tree(tmp_path)
    code = FULL_DISK.format(prepare=script[0], write=script[1], limit=limit)
    result = subprocess.run(
        [sys.executable, "-c", code, str(target)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{target}: can't be written")
    assert result.stderr == ""
    assert tree(tmp_path) == before
