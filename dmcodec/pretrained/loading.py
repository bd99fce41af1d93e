"""Loads teachers with transformers, and names what went wrong."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dmcodec.errors import (
    ArgumentError,
    MissingDependencyError,
    PretrainedModelError,
    TeacherError,
    TeacherNotFoundError,
    first_line,
)
from dmcodec.training.data.layout import sha256_of

# FOLDED: Loading pretrained transformers models: quietly, and with one clear error.


_WEIGHTS = ("*.safetensors", "*.bin")


def transformers() -> Any:
    """The module transformers.

    Raises:
        MissingDependencyError: it, or torch, isn't installed.
    """
    try:
        import torch  # noqa: F401 - transformers itself imports without it
        import transformers
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'teaching needs {error.name}, which is not installed; run `pip install "dmcodec[train]"`'
        ) from None
    return transformers


def pick_device(device: str | None, threads: int | None = None) -> str:
    """`device`, or where none is named cuda if there is one, else cpu; sets torch's threads where they are named."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ArgumentError(f"--device {device!r} can't be used ({reason}); use cpu, or leave it out") from None
    return str(chosen)


def load(what: str, model_id: str, loader: Callable[..., Any], **options: Any) -> Any:
    """Calls a `from_pretrained` of transformers.

    Args:
        what: is loaded, for errors.
        model_id: id on the hub, or local folder.
        loader: the `from_pretrained`.
        options: of the loader.

    Raises:
        TeacherNotFoundError: no such id or folder, or it holds no such thing.
        TeacherError: damaged files.
    """
    with quiet():
        try:
            return loader(model_id, **options)
        except OSError as error:
            raise TeacherNotFoundError(
                f"{model_id}: {what} can't be loaded ({first_line(error)}); name what transformers loads"
            ) from None
        except Exception as error:  # noqa: BLE001 - what damaged files raise is not documented
            raise TeacherError(
                f"{model_id}: {what} can't be loaded ({type(error).__name__}: {first_line(error)})"
            ) from None


def load_model(what: str, model_id: str, auto_class: Any, device: str) -> Any:
    """A model in float32, in evaluation mode, on `device`; refuses one some of whose weights are missing."""
    import torch

    loaded = load(what, model_id, auto_class.from_pretrained, dtype=torch.float32, output_loading_info=True)
    model, info = loaded
    missing = sorted(name for name in info["missing_keys"] if not _unused(name))
    if missing:
        raise TeacherError(
            f"{model_id}: has no weights for {len(missing)} tensors of a {type(model).__name__} "
            f"({missing[0]}, ...), so it is no trained {what}"
        )
    return model.to(device).eval()


def _unused(name: str) -> bool:
    """Weights that no teacher's features need: BERT's pooler, HuBERT's training-time mask, folded positions."""
    return name.startswith("pooler.") or ".pooler." in name or "masked_spec_embed" in name or "position_ids" in name


def weights_id(model_id: str, model: Any) -> str:
    """What tells these weights from others of the same name: the hub's commit, or a sha256 of the folder's weights."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        return str(commit)
    folder = Path(model_id)
    files = sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))
    return hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()[:32]


def batch_hidden_states(output: Any, layer: str) -> Any:
    """Mean of all hidden states, the last, or one by number: (batch, frames, width)."""
    import torch

    states = output.hidden_states
    if layer == "avg":
        return torch.stack(tuple(states)).mean(dim=0)
    return states[-1] if layer == "last" else states[int(layer)]


def check_layer(option: str, layer: str, num_states: int, model_id: str) -> None:
    """Raises ArgumentError where `layer` is no form of layer, or not one of the model's."""
    if layer in ("avg", "last"):
        return
    if not layer.isdecimal():
        raise ArgumentError(f"{option} {layer!r} is not known; use avg, last or a number")
    if int(layer) >= num_states:
        raise ArgumentError(f"{option} {layer}: {model_id} has hidden states 0 (the embedding) to {num_states - 1}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars and remarks."""
    from transformers.utils import logging as typed_badly

    logging: Any = typed_badly
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


Loaded = TypeVar("Loaded")


def load_pretrained(what: str, model: str, load: Callable[[], Loaded]) -> Loaded:
    """Calls `load`; its failures name the model and the way out.

    Raises:
        PretrainedModelError: no such model, no connection, or not of this kind.
        MissingDependencyError: torch or transformers isn't installed.
    """
    try:
        with quiet_transformers():
            return load()
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'the {what} needs {error.name}, which is not installed; run `pip install "dmcodec[evaluate]"`'
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        reason = first_line(error)
        raise PretrainedModelError(
            f"{what} {model!r} can't be loaded ({reason}); name a folder, or a model of the hub and be online"
        ) from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers within the block."""
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_NOT_INSTALLED = "not installed"


def package_version(name: str) -> str:
    """Version of an installed distribution, or "not installed"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return _NOT_INSTALLED
