"""The folder of a run: its configuration, its checkpoints, the best codec so far, and the record of its losses.

run.json                      what the run computes: configuration, data, versions
checkpoints/step-00001000/    codec.safetensors + config.json (what `dmcodec export` takes), and the training's state
best/                         codec.safetensors + config.json of the lowest validation mel distance, metrics.json
train.jsonl, validation.jsonl one line per step or validation
tensorboard/, samples/
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dmcodec.config import CodecConfig
from dmcodec.errors import (
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    OutputError,
    OutputExistsError,
    first_line,
)
from dmcodec.files import make_folder, output_folder, write_bytes

from .config import TrainingConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# FOLDED: The record of a run: JSON lines always, TensorBoard where it is wanted.


FORMAT_VERSION = 1
CODEC, CONFIG, STATE, PROGRESS = "codec.safetensors", "config.json", "training.pt", "progress.json"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is: optimizer steps done, and the lowest validation mel distance so far (None: not yet known)."""

    step: int = 0
    best_mel: float | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: the codec's state dict, and everything else that an exact resume needs."""

    progress: Progress
    codec: Mapping[str, Tensor]
    state: Mapping[str, Any]


class RunFolder:
    """Reads and writes the folder of a run; only the main process writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def _facts(self) -> Path:
        return self.path / "run.json"

    def initial(self) -> str | None:
        """The checkpoint that the run there was started from; None for random weights.

        Raises:
            CheckpointError: there is no run.
        """
        if not self._facts.is_file():
            raise CheckpointError(f"{self.path}: no run to resume here (no run.json); start one without --resume")
        return _read_json(self._facts).get("initial")

    def start(self, facts: Mapping[str, Any], resume: bool, force: bool) -> None:
        """Makes the folder, or checks that it belongs to the same configuration and data.

        Raises:
            OutputExistsError: a run is there, and neither resume nor force.
            ConfigError: the run there is of another configuration or other data; the first difference is named.
        """
        file = self._facts
        if resume:
            _check_same(facts, _read_json(file), file)
            for unfinished in [*self.path.glob(".best.*"), *self.path.glob("checkpoints/.step-*")]:
                shutil.rmtree(unfinished, ignore_errors=True)  # a kill in mid-save left it
            return
        if self.path.exists() and not self.path.is_dir():
            raise OutputExistsError(f"{self.path}: is a file; name a folder")
        if self.path.exists() and any(self.path.iterdir()):
            if not force:
                raise OutputExistsError(f"{self.path}: holds files already; --resume goes on, --force starts over")
            if not file.exists():
                raise OutputExistsError(f"{self.path}: holds files, but no run; --force only replaces a run")
            shutil.rmtree(self.path)
        make_folder(self.path)
        write_bytes(file, json.dumps({"format_version": FORMAT_VERSION, **facts}, indent=2).encode())

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        found = (self.path / "checkpoints").glob("step-*")
        numbers = [folder.name.removeprefix("step-") for folder in found]
        return sorted(int(number) for number in numbers if re.fullmatch("[0-9]{8,}", number))

    def save(self, checkpoint: Checkpoint, config: CodecConfig, keep: int) -> Path:
        """Writes a checkpoint, whole or not at all, then removes all but the last `keep`.

        Raises:
            OutputError: it can't be written (a full disk, say); the former checkpoints are untouched.
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
        """Writes the best codec so far, whole or not at all."""
        folder = self.path / "best"
        with output_folder(folder, force=True) as temporary, _disk_errors(folder):
            _write_codec(temporary, codec, config)
            (temporary / "metrics.json").write_text(json.dumps(dict(metrics), indent=2))

    def load(self, step: int) -> Checkpoint:
        """Reads the checkpoint of `step`.

        Raises:
            CheckpointError: it is damaged.
        """
        from dmcodec.nn.checkpoint import read_checkpoint

        folder = self.checkpoint_folder(step)
        codec = read_checkpoint(folder / CODEC)
        try:
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            progress = Progress(**_read_json(folder / PROGRESS))
        except Exception as error:  # noqa: BLE001 - a damaged pickle raises what it likes
            raise CheckpointError(
                f"{folder}: can't be read ({type(error).__name__}); remove it to resume from the checkpoint before"
            ) from None
        return Checkpoint(progress, codec, state)

    def checkpoint_folder(self, step: int) -> Path:
        """Where the checkpoint of `step` lies."""
        return self.path / "checkpoints" / f"step-{step:08d}"


def _write_codec(folder: Path, codec: Mapping[str, Tensor], config: CodecConfig) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in codec.items()}, folder / CODEC)
    (folder / CONFIG).write_text(json.dumps(config.to_dict(), indent=2))


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Torch and safetensors wrap the system's errors in their own."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        reason = first_line(error)
        raise OutputError(f"{folder}: can't be written ({reason}); check the disk and the rights") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: can't be read ({error})") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return value


def _check_same(facts: Mapping[str, Any], found: Mapping[str, Any], file: Path) -> None:
    if found.get("format_version", 0) > FORMAT_VERSION:
        raise CheckpointError(f"{file}: written by a newer dmcodec; upgrade it to resume this run")
    # What a run from before a setting came in doesn't say has the setting's default.
    config = TrainingConfig.from_dict(found.get("config"), source=str(file)).to_dict()
    for section, wanted, had in (("data", facts["data"], found.get("data")), ("config", facts["config"], config)):
        differences = list(_differences(wanted, had, section))
        if differences:
            raise ConfigError(
                f"{file}: this run was started with another {differences[0]}; "
                "resume with the same settings, or start a new run in another folder"
            )


def _differences(wanted: Any, found: Any, name: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in sorted(wanted.keys() | found.keys()):
            yield from _differences(wanted.get(key), found.get(key), f"{name}.{key}")
    elif wanted != found:
        yield f"{name} ({found!r}, now {wanted!r})"


class Record:
    """Appends one line a step to `train.jsonl` and `validation.jsonl`, and the same to TensorBoard.

    A resumed run drops the lines after the step it resumes from, so that no step is there twice; `step` -1 drops all.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.folder = folder
        for name in ("train", "validation"):
            _drop_after(folder / f"{name}.jsonl", step)
        self._writer = _writer(folder / "tensorboard", step) if tensorboard else None

    def scalars(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """One line of `name`.jsonl, `name`/... in TensorBoard."""
        path = self.folder / f"{name}.jsonl"
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **finite}) + "\n")
        except OSError as error:
            raise OutputError(f"{path}: can't be written ({error.strerror or error}); check the disk") from error
        if self._writer is not None:
            for key, value in values.items():
                self._writer.add_scalar(f"{name}/{key}", value, step)

    def audio(self, name: str, step: int, waveform: Tensor, log_mel: Tensor, sample_rate: int) -> None:
        """A waveform [samples] and its log-mel spectrogram [n_mels, frames], to TensorBoard."""
        if self._writer is None:
            return
        self._writer.add_audio(f"{name}/audio", waveform.clamp(-1, 1)[None], step, sample_rate)
        low, high = log_mel.min(), log_mel.max()
        picture = ((log_mel - low) / (high - low).clamp(min=1e-6)).flip(0)
        self._writer.add_image(f"{name}/mel", picture[None].repeat_interleave(2, dim=1), step)

    def close(self) -> None:
        """Writes what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; a last line that was cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def _drop_after(path: Path, step: int) -> None:
    kept = [line for line in read_lines(path) if line["step"] <= step]
    if path.exists():
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def require_tensorboard() -> None:
    """Raises MissingDependencyError where TensorBoard isn't installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            'TensorBoard is not installed; run `pip install "dmcodec[train]"`, or leave it out with --no-tensorboard'
        ) from None


def _writer(folder: Path, step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
