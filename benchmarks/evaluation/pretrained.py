"""Loading pretrained transformers models: quietly, and with one clear error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from dmcodec.errors import MissingDependencyError, PretrainedModelError

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
            f"the {what} needs {error.name}, which isn't installed; run `pip install dmcodec[evaluate]`"
        ) from None
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PretrainedModelError(
            f"{what} {model!r} can't be loaded ({first_line}); name a folder, or a model of the hub and be online"
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
