"""Which files an argument names: for encode and decode, train prepare and evaluate alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmcodec.errors import InputNotFoundError
from dmcodec.file_search import FoundFile, find_files

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
