"""Checkpoints of the Hugging Face hub, named as `ORG/NAME` or `ORG/NAME@REVISION` where a file could be named."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import CheckpointNotFoundError, DownloadError, MissingDependencyError, first_line
from .extras import is_installed

_ID = re.compile(r"(?P<id>[\w-][\w.-]*/[\w.-]*[\w-])(?:@(?P<revision>[\w./-]+))?")
_FILE = re.compile(r".*\.(safetensors|pt|pth|ckpt|bin|th|json|onnx|bundle)", re.IGNORECASE)
# The first of these that the repository has: files without code, then those of torch.
_SAFE = ["config.json", "*.safetensors", "*.safetensors.index.json"]
_TORCH = ["config.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.th", "*.ckpt"]


def is_hub_id(path: str | Path) -> bool:
    """Return whether a path that isn't there names a model of the hub: two parts, of which the first is no folder."""
    name = Path(path).as_posix()
    match = _ID.fullmatch(name)
    if match is None or _FILE.fullmatch(match["id"]) or os.path.lexists(path):
        return False
    return not os.path.isdir(name.split("/")[0])  # noqa: PTH112 - Path.is_dir raises where the name is too long


def fetch_checkpoint(path: str | Path) -> Path:
    """Fetch a model of the hub into the cache of huggingface_hub, or find it there; return its folder.

    Args:
        path: for which `is_hub_id` is true.

    Raises:
        CheckpointNotFoundError: the hub has no such model or revision, or does not show it.
        DownloadError: the hub can't be reached, and the cache does not have the model.
        MissingDependencyError: huggingface_hub is not installed.
    """
    name = Path(path).as_posix()
    match = _ID.fullmatch(name)
    if match is None:
        raise CheckpointNotFoundError(f"{name}: no such checkpoint file")
    if not is_installed("huggingface_hub"):
        raise MissingDependencyError(
            f"{name}: no such file or folder; to fetch the model of this name from the Hugging Face hub, run "
            '`pip install "dmcodec[pull]"`'
        )
    folder = _snapshot(name, match["id"], match["revision"], _SAFE)
    if any(folder.glob("*.safetensors")):
        return folder
    return _snapshot(name, match["id"], match["revision"], _TORCH)


def _snapshot(name: str, repository: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise CheckpointNotFoundError(
            f"{name}: the Hugging Face hub shows this model only to users who agreed to its terms; agree there, and "
            "log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointNotFoundError(f"{name}: the model has no such revision; check what follows the @") from error
    except RepositoryNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{name}: no such file or folder, and the Hugging Face hub has no such model, or it is private; check the "
            "name"
        ) from error
    except Exception as error:  # of its HTTP library, which differs between versions
        if isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError):
            raise DownloadError(
                f"{name}: the Hugging Face hub refused it ({first_line(error)}); try again later, or name a folder"
            ) from error
        raise DownloadError(
            f"{name}: no such file or folder, and not fetched as a model of the Hugging Face hub, which can't be "
            "reached; go online, or name a folder with config.json and the weights"
        ) from error
