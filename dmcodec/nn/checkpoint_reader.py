"""Reader of checkpoint files by their content: `torch.save`, safetensors, and indexes of several files.

Nothing is unpickled but tensors and plain containers.
"""

from __future__ import annotations

import contextlib
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmcodec.checkpoint_files import find_checkpoint, shards_of
from dmcodec.errors import CheckpointError

_MAX_DEPTH = 8
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # after the protocol, in files of torch before 1.6
_SAVE_AGAIN = "save its weights alone, with torch.save(model.state_dict(), FILE), and name that file"
# First bytes of files that users mistake for checkpoints.
_FOREIGN = {
    b"version https://git-lfs": "is the pointer of a Git LFS file; fetch the file itself with `git lfs pull`",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first",
}


@dataclass(frozen=True)
class FoundTensor:
    """A tensor of a checkpoint: the names of the dictionaries around it, and its name in the innermost one."""

    container: tuple[str, ...]
    name: str
    tensor: Tensor

    @property
    def path(self) -> str:
        """All names, joined by dots."""
        return ".".join([*self.container, self.name])


def read_tensors(path: Path) -> list[FoundTensor]:
    """Read all tensors of a checkpoint: a file, or a folder with one.

    Raises:
        CheckpointNotFoundError: no such file.
        CheckpointError: the file is damaged, is no checkpoint, or holds Python objects, which are not loaded.
    """
    content = _read(find_checkpoint(path).weights)
    found = list(_walk(content, (), set()))
    if isinstance(content, Mapping) and not content:
        raise CheckpointError(f"{path}: holds nothing; save the checkpoint again, or name another file")
    if not found:
        kind = type(content).__name__
        held = f": its entries are {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise CheckpointError(
            f"{path}: not a state dict, but a {kind} without named tensors{held}; "
            "name a file that maps names to tensors"
        )
    return found


def _walk(value: Any, container: tuple[str, ...], seen: set[int]) -> Iterator[FoundTensor]:
    if not isinstance(value, Mapping) or len(container) > _MAX_DEPTH or id(value) in seen:
        return
    seen.add(id(value))
    for name, each in value.items():
        if isinstance(name, str) and isinstance(each, Tensor):
            yield FoundTensor(container, name, each)
        elif isinstance(name, str):
            yield from _walk(each, (*container, name), seen)


def _read(path: Path) -> Any:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(256)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror or error}); check the rights") from None
    if not head:
        raise CheckpointError(f"{path}: is empty; fetch or save the checkpoint again")
    header_bytes = struct.unpack("<Q", head[:8])[0] if head[8:9] == b"{" else size
    if header_bytes <= size - 8:  # before the others: the length of its header may begin with any byte
        return _read_safetensors(path, header_bytes, size)
    if head.startswith(b"PK"):
        return _read_zip(path)
    if head[:1] == b"\x80":
        return _read_pickle(path, head)
    if size >= 8 and head[8:9] == b"{":
        return _read_safetensors(path, header_bytes, size)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{"):
        merged: dict[str, Any] = {}
        for shard in shards_of(path):
            merged.update(_read(shard))
        return merged
    if text.startswith(b"<"):
        raise CheckpointError(f"{path}: is a web page, not a checkpoint; fetch the file itself again")
    reason = next(
        (reason for start, reason in _FOREIGN.items() if head.startswith(start)),
        "is no checkpoint, neither of torch.save nor safetensors; name the file with the weights",
    )
    raise CheckpointError(f"{path}: {reason}")


def _read_safetensors(path: Path, header_bytes: int, size: int) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if header_bytes > size - 8:
        raise CheckpointError(f"{path}: is cut short or damaged; fetch or save it again")
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: can't be read as safetensors: cut short or damaged; fetch it again") from error


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside:
        raise CheckpointError(f"{path}: is a TorchScript program; {_SAVE_AGAIN}")
    if not names:
        raise CheckpointError(f"{path}: is cut short or damaged; fetch or save the checkpoint again")
    if "data.pkl" not in inside:
        raise CheckpointError(f"{path}: is a zip archive without a checkpoint of torch.save; unpack it first")
    return _torch_load(path)


def _read_pickle(path: Path, head: bytes) -> Any:
    if _LEGACY_MAGIC not in head[:16]:
        raise CheckpointError(
            f"{path}: is a pickle that torch.save did not write; it is not loaded, since it could run code; "
            f"{_SAVE_AGAIN}"
        )
    return _torch_load(path)


def _torch_load(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # by its name, torch would take .safetensors for what it says
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        objects = _python_objects(path, str(error))
        if objects:
            raise CheckpointError(
                f"{path}: holds Python objects besides tensors ({objects}), which are not loaded, since they could "
                f"run code; where you trust the file, load it with weights_only=False and {_SAVE_AGAIN}"
            ) from error
        raise CheckpointError(
            f"{path}: torch can't read it as a checkpoint of plain tensors: cut short or damaged; fetch or save it "
            "again"
        ) from error


def _python_objects(path: Path, message: str) -> str:
    """Return the names of the classes for which torch refused a checkpoint, or "" for another reason."""
    names: list[str] = []
    with contextlib.suppress(Exception):  # not in all versions, and not for old files
        names = list(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    names = names or re.findall(r"(?:GLOBAL|class) '?([\w.]+)", message)
    return ", ".join(sorted(set(names))[:3])
