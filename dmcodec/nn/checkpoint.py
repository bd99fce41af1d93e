"""Weights of checkpoints in a model, loaded strictly and without unpickling code, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dmcodec.checkpoint_files import CONFIG
from dmcodec.errors import CheckpointError

from .checkpoint_reader import FoundTensor, read_tensors
from .dialects import STATISTICS, Selection, plain_name, select

_SHOWN = 3


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint, by their names without wrappers.

    The format is that of the content, whatever the suffix: `torch.save` (weights only), safetensors, or the index of
    several files.

    Raises:
        CheckpointNotFoundError: no such file.
        CheckpointError: the file is damaged, or holds no tensors.
    """
    return {plain_name(each.path): each.tensor for each in read_tensors(Path(path))}


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load the weights of a checkpoint of any dialect (`dmcodec.nn.dialects`) into a model, strictly and as float32.

    Raises:
        CheckpointNotFoundError: no such file.
        CheckpointError: the file can't be read, or its tensors are not the model's; the first ones are named.
    """
    path = Path(path)
    load_tensors(model, read_tensors(path), path)


def load_tensors(model: nn.Module, found: Sequence[FoundTensor], path: Path) -> None:
    """Load the tensors that `read_tensors` read from the file `path`; see `load_checkpoint`."""
    selected = select(found, model.state_dict(), str(path))
    remark = "Does the configuration (--config) belong to this checkpoint?"
    if path.is_file() and (path.parent / CONFIG).is_file():
        remark += f" {path.parent / CONFIG} lies beside it"
    _load(model, selected, str(path), remark)


def load_state_dict(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict under the model's own names, strictly and as float32.

    Args:
        model: whose tensors are replaced.
        state: names and tensors.
        source: name of the checkpoint in errors.

    Raises:
        CheckpointError: tensors are missing, unexpected, of another shape, or not finite; the first ones are named.
    """
    _load(model, Selection(state, ""), source, "Does the configuration (--config) belong to this checkpoint?")


def _load(model: nn.Module, selected: Selection, source: str, remark: str) -> None:
    expected, state = model.state_dict(), selected.state
    problems = [f"missing tensor {name}" for name in expected if name not in state]
    if problems and selected.prefix:
        problems[0] += f" (the others are under {selected.prefix.rstrip('.')})"
    problems += [f"unexpected tensor {name}" for name in state if name not in expected]
    for name, tensor in state.items():
        if name in expected and (problem := _problem(tensor, expected[name])):
            problems.append(f"{name} {problem}")
    if problems:
        more = f" (and {len(problems) - _SHOWN} more)" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"{source}: {'; '.join(problems[:_SHOWN])}{more}. {remark}")
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


def _problem(tensor: Tensor, expected: Tensor) -> str | None:
    """Return what is wrong with a tensor, or None."""
    if tensor.shape != expected.shape:
        return f"has shape {tuple(tensor.shape)}, expected {tuple(expected.shape)}"
    if not tensor.is_floating_point() or tensor.is_quantized:
        return f"has type {str(tensor.dtype).removeprefix('torch.')}, expected floating-point numbers"
    return None if torch.isfinite(tensor.float()).all() else "holds NaN or infinite values"


def model_id(model: nn.Module) -> str:
    """Return what identifies the weights: the first 16 hex digits of a SHA-256 over names and float32 values.

    The training statistics of the codebooks do not count: they change neither codes nor audio.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith(STATISTICS):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
