"""Reader of checkpoints: state dicts of `torch.save` or safetensors, loaded strictly, without unpickling code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dmcodec.errors import CheckpointError, CheckpointNotFoundError, first_line

# Names of g and v in torch.nn.utils.parametrizations.weight_norm, and the older ones of the released checkpoints.
_NEW_STYLE = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
_STATISTICS = ("inited", "cluster_size", "embed_avg")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` or a `torch.save` file (weights only).

    Raises:
        CheckpointNotFoundError: no such file.
        CheckpointError: the file is damaged, or holds no state dict.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        raise CheckpointNotFoundError(f"{path}: no such checkpoint file")
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return {_old_style(name): tensor for name, tensor in state.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: can't be read as safetensors ({error})") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged pickle may raise IndexError, AssertionError, ...
        raise CheckpointError(
            f"{path}: can't be read as a torch checkpoint of plain tensors ({first_line(error)})"
        ) from None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CheckpointError(f"{path}: not a state dict (expected a mapping of names to tensors)")
    return dict(state)


def _old_style(name: str) -> str:
    for new, old in _NEW_STYLE.items():
        name = name.replace(new, old)
    return name


def load_state_dict(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a model, strictly and as float32.

    Args:
        model: whose tensors are replaced.
        state: names and tensors.
        source: name of the checkpoint in errors.

    Raises:
        CheckpointError: tensors are missing, unexpected, of another shape, or not finite; the first ones are named.
    """
    expected = model.state_dict()
    problems = [f"missing tensor {name}" for name in expected if name not in state]
    problems += [f"unexpected tensor {name}" for name in state if name not in expected]
    for name, tensor in state.items():
        if name in expected and tensor.shape != expected[name].shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}")
        elif name in expected and not torch.isfinite(tensor).all():
            problems.append(f"{name} holds NaN or infinite values")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{source}: {'; '.join(problems[:3])}{more}. Does the configuration (--config) belong to this checkpoint?"
        )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


def model_id(model: nn.Module) -> str:
    """Return what identifies the weights: the first 16 hex digits of a SHA-256 over names and float32 values.

    The training statistics of the codebooks do not count: they change neither codes nor audio.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith(_STATISTICS):
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
