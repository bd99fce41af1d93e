"""Loading of transformers models, without their log output and with one form of error."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging as logs
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmcodec.cpus import set_torch_threads
from dmcodec.errors import (
    ArgumentError,
    DmcodecError,
    MissingDependencyError,
    PretrainedModelError,
    TeacherError,
    TeacherNotFoundError,
)
from dmcodec.files import file_sha256

from .failures import reason

NOT_INSTALLED = "not installed"
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(frozen=True)
class Purpose:
    """The purpose of loading a model; it decides the classes of the errors.

    Attributes:
        name: name of the work, in messages.
        extra: of dmcodec that installs what the work needs.
        error: raised where a model is damaged, of the wrong kind, or fails.
        not_found: raised where there is no such model.
    """

    name: str
    extra: str
    error: type[DmcodecError]
    not_found: type[DmcodecError]


TEACHING = Purpose("teaching", "train", TeacherError, TeacherNotFoundError)
EVALUATION = Purpose("evaluation", "evaluate", PretrainedModelError, PretrainedModelError)


def transformers(purpose: Purpose) -> Any:
    """Return the module transformers.

    Raises:
        MissingDependencyError: transformers or torch is not installed.
    """
    try:
        import torch  # noqa: F401 - transformers itself imports without it
        import transformers
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f'{purpose.name} needs {error.name}, which is not installed; run `pip install "dmcodec[{purpose.extra}]"`'
        ) from None
    return transformers


def load(purpose: Purpose, what: str, model_id: str, loader: Callable[..., Any], **options: Any) -> Any:
    """Call a `from_pretrained` of transformers.

    Args:
        purpose: decides the class of the errors.
        what: kind of object, in messages.
        model_id: id on the hub, or local folder.
        loader: the `from_pretrained`.
        options: passed to the loader.

    Raises:
        DmcodecError: of the purpose's `not_found` class where there is no such model or file, else of its `error`
            class.
    """
    with quiet():
        try:
            return loader(model_id, **options)
        except Exception as error:
            failure = purpose.not_found if isinstance(error, OSError) else purpose.error
            raise failure(f"{what} {model_id!r} can't be loaded: {reason(error, model_id)}") from error


def load_model(purpose: Purpose, what: str, model_id: str, auto_class: Any, device: str) -> Any:
    """Load a model in float32 and in evaluation mode onto `device`.

    Args:
        purpose: decides the class of the errors.
        what: kind of model, for errors.
        model_id: id on the hub, or local folder.
        auto_class: such as `transformers.AutoModel`.
        device: of torch.

    Raises:
        DmcodecError: as `load`; also where the files lack some of the model's weights.
    """
    import torch

    model, info = load(
        purpose, what, model_id, auto_class.from_pretrained, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(name for name in info["missing_keys"] if not _is_optional(name))
    if missing:
        raise purpose.error(
            f"{what} {model_id!r} has no weights for {len(missing)} tensors of a {type(model).__name__} "
            f"({missing[0]}, ...); name a trained {what}"
        )
    return model.to(device).eval()


def _is_optional(name: str) -> bool:
    """Whether the output does not depend on a weight.

    Such are BERT's pooler, HuBERT's mask in training, folded positions, and the heads that x-vectors are trained with.
    """
    if name.startswith(("objective.", "classifier.")):
        return True
    return name.startswith("pooler.") or ".pooler." in name or "masked_spec_embed" in name or "position_ids" in name


def weights_id(model_id: str, model: Any) -> str:
    """Return what identifies the weights: the commit on the hub, or 32 hex digits of a SHA-256 of the files."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        return str(commit)
    folder = Path(model_id)
    files = sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))
    return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()[:32]


def pick_device(device: str | None) -> str:
    """Return `device`, or by default cuda where there is a GPU, else cpu.

    Raises:
        ArgumentError: torch does not know the device, or it is not available.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"--device {device!r} can't be used on this machine; use cpu, or leave it out") from error
    return str(chosen)


def set_threads(threads: int | None) -> None:
    """Set the number of torch's CPU threads, for the whole process; see `dmcodec.cpus.set_torch_threads`."""
    set_torch_threads(threads)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the progress bars, log messages and warnings of transformers and its hub within the block."""
    from transformers.utils import logging as untyped_logging

    logging: Any = untyped_logging
    hub = logs.getLogger("huggingface_hub")
    hub_level = hub.level
    hub.setLevel(logs.ERROR)
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub.setLevel(hub_level)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def package_version(name: str) -> str:
    """Return the version of an installed distribution, or "not installed"."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED
