"""Which files an argument names: for encode and decode, train prepare and evaluate alike."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from platforms import posix

from dmcodec.errors import InputNotFoundError
from dmcodec.file_search import FOLDER, HIDDEN, OTHER_SUFFIX, SEEN, FoundFile, describe_left_out, find_files, search

SUFFIXES = {".wav", ".flac"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files to find, and some that do not count."""
    for name in ("b.wav", "a.FLAC", "sub/c.wav", ".hidden.wav", "notes.txt", "x.wav/inside.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "in"


def test_a_folder_stands_for_what_lies_below_it(folder: Path) -> None:
    names = ["a.FLAC", "b.wav", "sub/c.wav"]
    assert find_files([str(folder)], SUFFIXES) == [FoundFile(folder / name, Path(name)) for name in names]
    with pytest.raises(InputNotFoundError, match=r"no files in this folder end in \.dmc"):
        find_files([str(folder)], {".dmc"})


def test_a_pattern_stands_for_the_files_that_match(folder: Path) -> None:
    found = find_files([str(folder / "**" / "*.*")], SUFFIXES)
    names = ["a.FLAC", "b.wav", "notes.txt", "sub/c.wav", "x.wav/inside.txt"]
    assert found == [FoundFile(folder / name, Path(Path(name).name)) for name in names]
    with pytest.raises(InputNotFoundError, match=r"\*\.ogg: no files match this pattern"):
        find_files([str(folder / "*.ogg")], SUFFIXES)


@pytest.mark.parametrize("name", ["missing.wav", "b.wav", "notes.txt", "x" * 300])
def test_a_single_file_is_taken_as_named(folder: Path, name: str) -> None:
    assert find_files([str(folder / name)], SUFFIXES) == [FoundFile(folder / name, Path(name))]


def test_a_name_that_looks_like_a_pattern_is_the_file_where_there_is_one(folder: Path) -> None:
    (folder / "[a].wav").touch()
    assert find_files([str(folder / "[a].wav")], SUFFIXES) == [FoundFile(folder / "[a].wav", Path("[a].wav"))]
    with pytest.raises(InputNotFoundError):
        find_files([str(folder / ("[a]" * 100))], SUFFIXES)


def test_arguments_keep_their_order(folder: Path) -> None:
    found = find_files([str(folder / "b.wav"), str(folder / "sub"), str(folder / "*.FLAC")], SUFFIXES)
    assert [file.path.name for file in found] == ["b.wav", "c.wav", "a.FLAC"]
    assert find_files([], SUFFIXES) == []


@posix
def test_folders_behind_links_are_searched_once(tmp_path: Path) -> None:
    for name in ("store/one/a.wav", "in/real/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    root = tmp_path / "in"
    (root / "link").symlink_to("../store")
    (root / "link2").symlink_to("../store/one")
    (root / "loop").symlink_to(".")
    (root / "real" / "up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "aaa").symlink_to("real")
    (root / "c.wav").symlink_to("../store/one/a.wav")
    (root / "d.wav").symlink_to("missing")
    found = search([str(root)], SUFFIXES)
    assert [str(file.relative) for file in found.files] == ["c.wav", "d.wav", "link/one/a.wav", "real/b.wav"]
    assert sorted((each.path.name, each.reason) for each in found.left_out) == [
        ("aaa", SEEN), ("link2", SEEN), ("loop", SEEN), ("self", OTHER_SUFFIX), ("up", SEEN),
    ]  # fmt: skip
    assert found.problems == []


def test_what_is_left_out_is_counted_and_named(folder: Path) -> None:
    for name in ("x.sph", "y.M4A", "z.m4a", "none", ".cache/q.wav", ".a.1.dmcodec-part.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    left_out = search([str(folder)], SUFFIXES).left_out
    names = {each.path.name: each.reason for each in left_out}
    others = ("x.sph", "y.M4A", "z.m4a", "none", "notes.txt", "inside.txt")
    assert names == dict.fromkeys(others, OTHER_SUFFIX) | dict.fromkeys((".cache", ".hidden.wav"), HIDDEN)
    line = describe_left_out(left_out)
    assert "6 (another suffix: " in line
    assert "2 .m4a" in line
    assert ", and 1 more" in line
    assert f"2 (hidden): {folder / '.cache'}" in line
    assert describe_left_out([]) == ""


def test_a_folder_that_cant_be_read_is_a_problem_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = search([str(folder), str(folder / "missing.*")], SUFFIXES)
    assert [file.path.name for file in found.files] == ["a.FLAC", "b.wav"]
    assert [problem.path.name for problem in found.problems] == ["sub", "missing.*"]
    assert "can't be read (Permission denied)" in str(found.problems[0].error)
    assert any(each.path.name == "sub" for each in found.left_out)


@posix
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_links_in_any_order_give_each_file_once(
    tmp_path_factory: pytest.TempPathFactory, links: list[tuple[int, int]]
) -> None:
    root = tmp_path_factory.mktemp("links")
    for index in range(5):
        (root / "in" / f"{index}").mkdir(parents=True)
        (root / "in" / f"{index}" / f"{index}.wav").touch()
    for number, (source, target) in enumerate(links):
        (root / "in" / f"{source}" / f"link{number}").symlink_to(root / "in" / f"{target}")
    files = search([str(root / "in")], SUFFIXES).files
    assert [str(file.relative) for file in files] == [f"{index}/{index}.wav" for index in range(5)]
    assert {file.path for file in search([str(root / "in" / "**" / "*.wav")], SUFFIXES).files} == {
        file.path for file in files
    }


@posix
def test_what_is_no_file_below_a_folder_is_left_out(folder: Path) -> None:
    os.mkfifo(folder / "p.wav")
    (folder / "n.wav").symlink_to("/dev/null")
    names = [folder / "a.FLAC", folder / "b.wav", folder / "sub" / "c.wav"]
    found = search([str(folder)], SUFFIXES)
    assert [file.path for file in found.files] == names
    assert {each.path.name: each.reason for each in found.left_out if each.path.suffix == ".wav"} == {
        ".hidden.wav": HIDDEN, "n.wav": "a device", "p.wav": "a FIFO; name it to read it",
    }  # fmt: skip
    found = search([str(folder / "*.wav")], SUFFIXES)
    assert [file.path.name for file in found.files] == ["b.wav"]
    assert [each.path.name for each in found.left_out if each.reason != FOLDER] == ["n.wav", "p.wav"]
    assert [file.path for file in search([str(folder / "p.wav")], SUFFIXES).files] == [folder / "p.wav"]
