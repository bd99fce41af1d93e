"""Checkpoints of the Hugging Face hub, named as `ORG/NAME` or `ORG/NAME@REVISION` where a file could be named."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dmcodec.models.hub import explanation
from dmcodec.models.names import HUB_PREFIX, KNOWN, HubName, HubSource, hub_name, is_hub_name

from .errors import ArgumentError, CheckpointError, CheckpointNotFoundError, HubNotFoundError, MissingDependencyError
from .extras import is_installed

_FILE = re.compile(r".*\.(safetensors|pt|pth|ckpt|bin|th|json|onnx|bundle)", re.IGNORECASE)
_BUNDLE = "manifest.json"
# The first of these that the repository has: files without code, then those of torch.
_SAFE = ["config.json", _BUNDLE, "*.safetensors", "*.safetensors.index.json"]
_TORCH = ["config.json", "*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.th", "*.ckpt"]


def is_hub_id(path: str | Path) -> bool:
    """Return whether a path that isn't there names a model of the hub: two parts, of which the first is no folder."""
    name = Path(path).as_posix()
    named = _parsed(name)
    if named is None or _FILE.fullmatch(named.repo) or os.path.lexists(path):
        return False
    return not os.path.isdir(name.split("/")[0])  # noqa: PTH112 - Path.is_dir raises where the name is too long


def no_such_checkpoint(path: str | Path) -> CheckpointNotFoundError:
    """Return the error for a path that isn't there; it says where the name of a codec or a bundle was meant."""
    name = Path(path).as_posix()
    if is_hub_name(name):
        rest = name.removeprefix("hf:").lstrip("/")  # a path has one slash only
        return CheckpointNotFoundError(
            f"{HUB_PREFIX}{rest}: is the name of a bundle, not of a checkpoint; give it with --bundle, or a model of "
            "the hub as ORG/NAME"
        )
    if name in KNOWN:
        return CheckpointNotFoundError(
            f"{name}: no such checkpoint file, but the name of a codec; run `dmcodec pull {name}`, then name it with "
            f"--bundle {name}"
        )
    return CheckpointNotFoundError(f"{name}: no such checkpoint file")


def fetch_checkpoint(path: str | Path) -> Path:
    """Fetch a model of the hub into the cache of huggingface_hub, or find it there; return its folder.

    Args:
        path: for which `is_hub_id` is true.

    Raises:
        CheckpointNotFoundError: the hub has no such model or revision, or does not show it, or it has no weights
            outside of folders.
        CheckpointError: it is a bundle.
        HubUnreachableError: the hub can't be reached, and the cache does not have the model.
        DownloadError: the hub refuses.
        MissingDependencyError: huggingface_hub is not installed.
    """
    name = Path(path).as_posix()
    named = _parsed(name)
    if named is None:
        raise no_such_checkpoint(path)
    if not is_installed("huggingface_hub"):
        raise MissingDependencyError(
            f"{name}: no such file or folder; to fetch the model of this name from the Hugging Face hub, run "
            '`pip install "dmcodec[pull]"`'
        )
    for patterns in (_SAFE, _TORCH):
        folder = _snapshot(name, named, patterns)
        if (folder / _BUNDLE).is_file():
            raise CheckpointError(f"{name}: is a bundle, not a checkpoint; give it with --bundle {HUB_PREFIX}{name}")
        if folder.is_dir() and any(file.name != "config.json" for file in folder.iterdir() if file.is_file()):
            return folder
    raise CheckpointNotFoundError(
        f"{name}: this model of the Hugging Face hub has no weights ({', '.join(_TORCH[1:])}, *.safetensors) beside "
        f"its README; {_remedy(named.repo)}"
    )


def _parsed(name: str) -> HubName | None:
    try:
        return None if is_hub_name(name) else hub_name(f"{HUB_PREFIX}{name}")
    except ArgumentError:
        return None


def _remedy(repository: str) -> str:
    for name, row in KNOWN.items():
        if isinstance(row.source, HubSource) and row.source.repo == repository:
            return f"run `dmcodec pull {name}`, then name it with --bundle {name}"
    return "where they are in one of its folders, fetch that one with `hf download`, and name it"


def _snapshot(name: str, named: HubName, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        # Of the folders in it nothing: a pattern such as *.pt would take the weights of every model there.
        with _quiet_client():
            return Path(
                snapshot_download(named.repo, revision=named.revision, allow_patterns=patterns, ignore_patterns=["*/*"])
            )
    except Exception as error:
        kind, reason = explanation(error, named.revision)
        if kind is HubNotFoundError:
            raise CheckpointNotFoundError(f"{name}: no such file or folder; as a model of the hub: {reason}") from error
        raise kind(
            f"{name}: no such file or folder, and not fetched as a model of the hub: {reason}, or name a folder with "
            "config.json and the weights"
        ) from error


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the log messages of huggingface_hub away, and its progress bars where nobody watches."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    hide = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if hide:
            enable_progress_bars()
