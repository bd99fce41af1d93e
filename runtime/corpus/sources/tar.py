"""WebDataset tars: a clip for each member that is audio, with what the members of the same key tell of it."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from dmcodec.audio import audio_suffixes
from dmcodec.errors import DataError, DmcodecError, InputNotFoundError, detail, first_line
from dmcodec.runtime.corpus.filesystems import file_system, is_url
from dmcodec.runtime.corpus.items import Item, Scalar, TarMember
from dmcodec.runtime.corpus.remote_files import file_state
from dmcodec.text import utf8

from .columns import free_names, scalar, seconds

# The first bytes of compressed files: their members can't be read in place.
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4",
}  # fmt: skip
# The key of a member ends at the first dot of its name, the rest is its suffix.
_NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)
_MAX_FACTS_BYTES = 16 << 20


@dataclass
class _Sample:
    """Members that follow each other and have the same key. `facts`: of its `.json`; `text`: of its `.txt`."""

    key: str
    audio: list[tarfile.TarInfo] = field(default_factory=list)
    facts: dict[str, Scalar] = field(default_factory=dict)
    text: str | None = None


class TarSource:
    """The clips of a tar; its members are not extracted.

    The id of a clip is the tar's name, and after a slash that of the member.

    Args:
        path: of the tar: a path, or a URL.
        name: of the tar in ids.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        state = _state(self._path)
        suffixes = audio_suffixes()
        found = False
        with _opened(self._path) as file:
            for sample in _samples(self._path, file, suffixes):
                columns = dict(sample.facts) | ({} if sample.text is None else {"text": sample.text})
                for member in sample.audio:
                    found = True
                    location = TarMember(self._path, utf8(member.name), member.offset_data, member.size)
                    yield Item(
                        f"{self._name}/{utf8(member.name).removeprefix('./')}", location, columns=free_names(columns),
                        state=state, size_bytes=member.size, audio_s=seconds(columns),
                    )  # fmt: skip
        if not found:
            raise InputNotFoundError(f"{self._path}: holds no audio, or not in a format that is read here")


def _state(path: str) -> str:
    try:
        return file_state(path)[0]
    except DmcodecError:
        raise
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: no such tar file") from None
    except OSError as error:
        raise InputNotFoundError(f"{path}: can't be read ({detail(error)})") from None


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        if is_url(path):
            system, inside = file_system(path)
            with system.open(inside, "rb") as file:
                yield cast(BinaryIO, file)
        else:
            with open(path, "rb") as file:
                yield file
    except DmcodecError:
        raise
    except tarfile.TarError as error:
        raise InputNotFoundError(
            f"{path}: can't be read as a tar file ({first_line(error)}); copy or make it again"
        ) from None
    except OSError as error:
        raise InputNotFoundError(f"{path}: can't be read ({detail(error)})") from None


def _samples(path: str, file: BinaryIO, suffixes: frozenset[str]) -> Iterator[_Sample]:
    head = file.read(6)
    file.seek(0)
    kind = next((kind for start, kind in _COMPRESSED.items() if head.startswith(start)), None)
    if kind:
        raise DataError(f"{path}: is compressed ({kind}), so its members can't be read in place; decompress it")
    found = _Sample("")
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # else all stay in memory
            match = _NAME.fullmatch(member.name)
            if match is None or not member.isreg():
                continue
            if match[1] != found.key:
                yield found
                found = _Sample(match[1])
            _add(found, member, match[2].lower(), tar, path, suffixes)
        yield found
        _refuse_damaged(path, file, tar.offset)


def _refuse_damaged(path: str, file: BinaryIO, end: int) -> None:
    """Raise InputNotFoundError where neither a block of zeros nor nothing follows the last member.

    The module tarfile takes a header that is damaged or cut short for the end.
    """
    file.seek(end)
    rest = file.read(tarfile.BLOCKSIZE)
    if rest and rest != bytes(tarfile.BLOCKSIZE):
        raise InputNotFoundError(f"{path}: is damaged or cut short after byte {end}; copy or make it again")


def _add(
    sample: _Sample, member: tarfile.TarInfo, suffix: str, tar: tarfile.TarFile, path: str, suffixes: frozenset[str]
) -> None:
    if f".{suffix.rpartition('.')[2]}" in suffixes:
        if member.issparse():
            raise DataError(f"{path}#{member.name}: is a sparse member, which can't be read in place; tar it again")
        sample.audio.append(member)
    elif suffix == "json":
        sample.facts.update(_facts(_content(tar, member, path), f"{path}#{member.name}"))
    elif suffix == "txt":
        sample.text = _content(tar, member, path).decode("utf-8", "replace").strip()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> bytes:
    if member.size > _MAX_FACTS_BYTES:
        raise DataError(f"{path}#{member.name}: is over {_MAX_FACTS_BYTES >> 20} MiB, too long for a .json or .txt")
    file = tar.extractfile(member)
    assert file is not None  # a regular member
    return file.read()


def _facts(data: bytes, name: str) -> dict[str, Scalar]:
    try:
        values: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: is not JSON ({detail(error)})") from None
    if not isinstance(values, dict):
        return {}
    return {str(key): scalar(value) for key, value in values.items()}
