"""Folder of a training run: configuration, checkpoints, and the best codec so far.

run.json                      settings of the run: configuration, data, versions
checkpoints/step-00001000/    codec.safetensors + config.json (the input of `dmcodec export`), and the training state
best/                         codec.safetensors + config.json of the lowest validation mel distance, metrics.json
train.jsonl, validation.jsonl one line per step or validation (`metrics_log`)
tensorboard/, samples/
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmcodec.config import CodecConfig
from dmcodec.errors import (
    CheckpointError,
    ConfigError,
    OutputError,
    OutputExistsError,
)
from dmcodec.files import make_folder, output_folder, write_bytes
from dmcodec.temporary import MARKS, sweep
from dmcodec.text_files import read_text

from .config import TrainingConfig

FORMAT_VERSION = 1
CODEC, CONFIG, STATE, PROGRESS = "codec.safetensors", "config.json", "training.pt", "progress.json"
METRICS = "metrics.json"
_LENGTHS = ("config.steps ", "config.epochs ")  # may grow when a run is resumed


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a run: optimizer steps done, and the lowest validation mel distance so far (None: not yet known)."""

    step: int = 0
    best_mel: float | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: the state dict of the codec, and all else that an exact resumption needs."""

    progress: Progress
    codec: Mapping[str, Tensor]
    state: Mapping[str, Any]


class RunFolder:
    """The folder of a run. Only the main process writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def _settings(self) -> Path:
        return self.path / "run.json"

    def initial(self) -> str | None:
        """Return the checkpoint that the run was started from; None for random weights.

        Raises:
            CheckpointError: the folder holds no run.
        """
        if not self._settings.is_file():
            raise CheckpointError(f"{self.path}: no run to resume here (no run.json); start one without --resume")
        return _read_json(self._settings).get("initial")

    def config(self) -> TrainingConfig:
        """Return the configuration of the run in the folder.

        Raises:
            CheckpointError: the folder holds no run.
        """
        self.initial()
        # A run of an older dmcodec lacks newer settings; they have their defaults.
        return TrainingConfig.from_dict(_read_json(self._settings).get("config"), source=str(self._settings))

    def check_same(self, settings: Mapping[str, Any]) -> None:
        """Check that the run in the folder has these settings, but for the number of its steps.

        Raises:
            ConfigError: the run has another configuration or other data; the first difference is named.
        """
        found = _read_json(self._settings)
        if found.get("format_version", 0) > FORMAT_VERSION:
            raise CheckpointError(f"{self._settings}: written by a newer dmcodec; upgrade it to resume this run")
        config = self.config().to_dict()
        for section, actual in (("data", found.get("data")), ("config", config)):
            differences = [
                each for each in _differences(settings[section], actual, section) if not each.startswith(_LENGTHS)
            ]
            if differences:
                raise ConfigError(
                    f"{self._settings}: this run was started with another {differences[0]}; "
                    "resume with the same settings, or start a new run in another folder"
                )

    def recover(self) -> None:
        """Put back what an interrupted save had moved away, then remove what it left."""
        for parent in (self.path, self.path / "checkpoints"):
            sweep(parent)
            for left in sorted(parent.glob(".*")) if parent.is_dir() else ():  # of dmcodec 0.1.0
                match = re.match(r"\.(best|step-[0-9]{8,})\.", left.name)
                if match and left.is_dir() and not left.name.endswith(MARKS):
                    _put_back(left, parent / match[1])
                    shutil.rmtree(left, ignore_errors=True)

    def start(self, settings: Mapping[str, Any], resume: bool, force: bool) -> None:
        """Make the folder, or note in it that its run has more steps now.

        Args:
            settings: of the run; written to run.json.
            resume: continue the run in the folder, which `check_same` has checked.
            force: replace the run in the folder.

        Raises:
            OutputExistsError: the folder holds a run, and neither `resume` nor `force` is set, or other files.
        """
        file = self._settings
        if resume:
            self._extend(settings["config"])
            return
        if self.path.exists() and not self.path.is_dir():
            raise OutputExistsError(f"{self.path}: is a file; name a folder")
        if self.path.exists() and any(self.path.iterdir()):
            if not force:
                raise OutputExistsError(
                    f"{self.path}: holds files already; use --resume to continue a run, or --force to replace it"
                )
            if not file.exists():
                raise OutputExistsError(f"{self.path}: holds files, but no run; --force only replaces a run")
            shutil.rmtree(self.path)
        make_folder(self.path)
        write_bytes(file, json.dumps({"format_version": FORMAT_VERSION, **settings}, indent=2).encode())

    def _extend(self, config: Mapping[str, Any]) -> None:
        found = _read_json(self._settings)
        lengths = {name: config[name] for name in ("steps", "epochs")}
        before = {name: self.config().to_dict()[name] for name in lengths}
        if lengths != before:
            record = {"after_step": (self.steps() or [0])[-1], **before}
            found |= {"config": {**found["config"], **lengths}, "extended": [*found.get("extended", []), record]}
            write_bytes(self._settings, json.dumps(found, indent=2).encode())

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in ascending order."""
        found = (self.path / "checkpoints").glob("step-*")
        numbers = [folder.name.removeprefix("step-") for folder in found]
        return sorted(int(number) for number in numbers if re.fullmatch("[0-9]{8,}", number))

    def save(self, checkpoint: Checkpoint, config: CodecConfig, keep: int) -> Path:
        """Write a checkpoint, completely or not at all, and remove all but the last `keep`.

        Returns:
            The folder of the checkpoint.

        Raises:
            OutputError: the checkpoint can't be written (a full disk, for example); the earlier ones are unchanged.
        """
        folder = self.checkpoint_folder(checkpoint.progress.step)
        with output_folder(folder, force=True) as temporary, _disk_errors(folder):
            _write_codec(temporary, checkpoint.codec, config)
            torch.save(dict(checkpoint.state), temporary / STATE)
            (temporary / PROGRESS).write_text(json.dumps(dataclasses.asdict(checkpoint.progress)))
        for step in self.steps()[:-keep]:
            shutil.rmtree(self.checkpoint_folder(step), ignore_errors=True)
        return folder

    def save_best(self, codec: Mapping[str, Tensor], config: CodecConfig, metrics: Mapping[str, Any]) -> None:
        """Write the best codec so far, completely or not at all."""
        folder = self.path / "best"
        with output_folder(folder, force=True) as temporary, _disk_errors(folder):
            _write_codec(temporary, codec, config)
            (temporary / METRICS).write_text(json.dumps(dict(metrics), indent=2))

    def load(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        from dmcodec.nn.checkpoint import read_checkpoint

        folder = self.checkpoint_folder(step)
        codec = read_checkpoint(folder / CODEC)
        try:
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            progress = Progress(**_read_json(folder / PROGRESS))
        except Exception as error:  # noqa: BLE001 - a damaged pickle may raise anything
            raise CheckpointError(
                f"{folder}: can't be read ({type(error).__name__}); remove it to resume from the checkpoint before"
            ) from None
        return Checkpoint(progress, codec, state)

    def checkpoint_folder(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step."""
        return self.path / "checkpoints" / f"step-{step:08d}"


def _write_codec(folder: Path, codec: Mapping[str, Tensor], config: CodecConfig) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in codec.items()}, folder / CODEC)
    (folder / CONFIG).write_text(json.dumps(config.to_dict(), indent=2))


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk, which torch and safetensors wrap in their own, into OutputError."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError, OSError) as error:
        free_mb = shutil.disk_usage(folder.parent).free / 1e6
        raise OutputError(
            f"{folder}: can't be written, with {free_mb:.0f} MB free on the disk; the checkpoints before it are whole: "
            "make room, and go on with --resume"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read as JSON; restore it, or start a new run") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def _put_back(left: Path, target: Path) -> None:
    """Make `target`, where it is missing, of a complete copy that an interrupted save left: the earlier one first."""
    if target.exists():
        return
    for folder in [*sorted(path for path in left.iterdir() if path.is_dir()), left]:
        if _is_complete(folder):
            folder.rename(target)
            return


def _is_complete(folder: Path) -> bool:
    """Return whether a folder of a codec was written to its end: its last file is there, and the codec whole."""
    from safetensors import SafetensorError, safe_open

    if not ((folder / PROGRESS).is_file() or (folder / METRICS).is_file()):
        return False
    try:
        with safe_open(folder / CODEC, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _differences(new: Any, old: Any, name: str) -> Iterator[str]:
    """Yield the names of the values that differ, with both values."""
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        for key in sorted(new.keys() | old.keys()):
            yield from _differences(new.get(key), old.get(key), f"{name}.{key}")
    elif new != old:
        yield f"{name} ({old!r}, now {new!r})"
