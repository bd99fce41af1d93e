"""Where the weights and the configuration of a checkpoint are, if a folder or a model of the hub is named."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError, CheckpointNotFoundError, ConfigError
from .hub_checkpoints import fetch_checkpoint, is_hub_id, no_such_checkpoint
from .text_files import decode_text

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".th")
CONFIG = "config.json"
INDEX = ".index.json"  # of weights in several files
_BUNDLE, _RUN, _STEPS = "manifest.json", "run.json", "checkpoints"
# What trainers save beside the weights.
_NO_WEIGHTS = re.compile(
    r"(optim|sched|random_state|rng_state|scaler|training|trainer_state|sampler|discrim|loss|.*\.download\.pt$)", re.I
)
_TRANSFORMERS_SAFE = {"model.safetensors", "model.safetensors.index.json"}
_TRANSFORMERS_OTHERS = {"pytorch_model.bin", "pytorch_model.bin.index.json"}
_SHARD = re.compile(r".*-\d{5}-of-\d{5}\.\w+$")


@dataclass(frozen=True)
class CheckpointFiles:
    """The files of a checkpoint.

    Attributes:
        weights: the file with the weights.
        config: the configuration that lies in the named folder, or None.
        chosen: among other checkpoints of the folder.
    """

    weights: Path
    config: Path | None = None
    chosen: bool = False


def find_checkpoint(path: str | Path) -> CheckpointFiles:
    """Find the weights that a path names: a file, a folder with one checkpoint, or the folder of a training run.

    Of a run it is the best codec so far, and the last checkpoint where there is no best one yet. A path that isn't
    there may name a model of the Hugging Face hub, which is fetched: see `dmcodec.hub_checkpoints`.

    Raises:
        CheckpointNotFoundError: no such file, folder or model.
        CheckpointError: a folder without a checkpoint, or with several; they are named.
        DownloadError, MissingDependencyError: as `fetch_checkpoint`.
    """
    path = local_checkpoint(path)
    if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        if not os.path.exists(path):  # noqa: PTH110 - as above
            raise no_such_checkpoint(path)
        return CheckpointFiles(path)
    if is_bundle(path):
        raise CheckpointError(f"{path}: is a bundle, not a checkpoint; give it with --bundle")
    inside = _of_run(path) or path
    found = _candidates(inside)
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise CheckpointError(f"{inside}: holds several checkpoints ({names}); name one of these files")
    if not found:
        raise CheckpointError(f"{inside}: {_why_none(inside)}")
    config = inside / CONFIG
    return CheckpointFiles(found[0], config if config.is_file() else None, chosen=inside != path)


def local_checkpoint(path: str | Path) -> Path:
    """Return a path as it is, or the folder of the model of the Hugging Face hub that it names, which is fetched.

    Raises:
        CheckpointNotFoundError, DownloadError, MissingDependencyError: as `fetch_checkpoint`.
    """
    return fetch_checkpoint(path) if is_hub_id(path) else Path(path)


def is_bundle(path: Path) -> bool:
    """Return whether a path is the folder of a bundle."""
    return os.path.isfile(path / _BUNDLE)  # noqa: PTH113 - Path.is_file raises where the name is too long


def config_file(path: str | Path) -> Path:
    """Return the configuration file that a path names: itself, or config.json in a folder.

    Raises:
        CheckpointNotFoundError: no such file.
        ConfigError: a folder without config.json.
    """
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        if not (path / CONFIG).is_file():
            raise ConfigError(f"{path}: is a folder without {CONFIG}; name the configuration file")
        return path / CONFIG
    if not os.path.exists(path):  # noqa: PTH110 - as above
        raise CheckpointNotFoundError(f"{path}: no such configuration file")
    return path


def shards_of(index: Path) -> list[Path]:
    """Return the files that the index of a sharded checkpoint names, each once.

    Raises:
        CheckpointError: the file is no such index, or one of its files is missing.
    """
    try:
        names = sorted(set(json.loads(decode_text(index.read_bytes()))["weight_map"].values()))
        files = [index.parent / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(
            f"{index}: is JSON, but not the index of a checkpoint; name the file with the weights"
        ) from None
    for file in files:
        if not file.is_file():
            raise CheckpointNotFoundError(f"{file}: is missing; {index.name} names it, download it, too")
    return files


def _of_run(path: Path) -> Path | None:
    """Return the folder of the codec to take from the folder of a run, or from its `checkpoints`."""
    is_run = (path / _RUN).is_file()
    if is_run and _candidates(path / "best"):
        return path / "best"
    parent = path / _STEPS if is_run else path
    steps = [folder for folder in sorted(parent.glob("step-*")) if re.fullmatch("step-[0-9]{8,}", folder.name)]
    return max(steps, key=lambda folder: int(folder.name.removeprefix("step-"))) if steps else None


def _candidates(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    names = {file.name for file in files}
    if names & _TRANSFORMERS_SAFE:  # transformers saves, and loads, the same weights in one of several formats
        files = [file for file in files if file.name not in _TRANSFORMERS_OTHERS]
    indexes = [file for file in files if file.name.endswith(INDEX)]
    weights = [
        file
        for file in files
        if file.suffix.lower() in SUFFIXES and not _NO_WEIGHTS.match(file.name) and not _SHARD.match(file.name)
    ]
    return weights + indexes


def _why_none(folder: Path) -> str:
    if any(folder.rglob("*.distcp")):
        return (
            "holds a distributed checkpoint (.distcp); convert it with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE`"
        )
    return f"is a folder without a checkpoint ({', '.join(SUFFIXES)}); name the file with the weights"
