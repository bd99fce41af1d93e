"""Metrics log of a run: JSON lines, and TensorBoard files where wanted."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dmcodec.errors import MissingDependencyError, OutputError
from dmcodec.files import write_bytes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class MetricsLog:
    """Appends a line per step to `train.jsonl` and `validation.jsonl`, and the same values to TensorBoard.

    A resumed run drops the lines after the step it resumes from, so that no step is there twice; step -1 drops all.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        self.folder = folder
        for name in ("train", "validation"):
            _drop_after(folder / f"{name}.jsonl", step)
        self._writer = _writer(folder / "tensorboard", step) if tensorboard else None

    def scalars(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Append a line to `name`.jsonl, and values called `name`/... to TensorBoard."""
        path = self.folder / f"{name}.jsonl"
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **finite}) + "\n")
        except OSError as error:
            raise OutputError(f"{path}: can't be written ({error.strerror or error}); check the disk") from error
        if self._writer is not None:
            with self._disk_errors():
                for key, value in values.items():
                    self._writer.add_scalar(f"{name}/{key}", value, step)

    def audio(self, name: str, step: int, waveform: Tensor, log_mel: Tensor, sample_rate: int) -> None:
        """Add a waveform [samples] and its log-mel spectrogram [n_mels, frames] to TensorBoard."""
        if self._writer is None:
            return
        low, high = log_mel.min(), log_mel.max()
        picture = ((log_mel - low) / (high - low).clamp(min=1e-6)).flip(0)
        with self._disk_errors():
            self._writer.add_audio(f"{name}/audio", waveform.clamp(-1, 1)[None], step, sample_rate)
            self._writer.add_image(f"{name}/mel", picture[None].repeat_interleave(2, dim=1), step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            with self._disk_errors():
                self._writer.close()

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn an error of TensorBoard's own thread, which it raises at a later call, into OutputError."""
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"{self.folder / 'tensorboard'}: can't be written ({error.strerror or 'error of the disk'}); make room "
                "and go on with --resume, or leave it out with --no-tensorboard"
            ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSON-lines file, up to a line that an interruption has cut short."""
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
    """Raise MissingDependencyError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise MissingDependencyError(
            'TensorBoard is not installed; run `pip install "dmcodec[train]"`, or leave it out with --no-tensorboard'
        ) from None


def _writer(folder: Path, step: int) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
