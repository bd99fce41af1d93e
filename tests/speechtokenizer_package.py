"""The package speechtokenizer, if it is installed, without its trainer: that imports torchaudio and others."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from typing import Any


def speechtokenizer_class() -> Any | None:
    """Return its class SpeechTokenizer, or None where the package, or einops, is not installed."""
    spec = importlib.util.find_spec("speechtokenizer")
    if spec is None or importlib.util.find_spec("einops") is None:
        return None
    if "speechtokenizer" not in sys.modules:  # its __init__ would import the trainer
        package = types.ModuleType("speechtokenizer")
        package.__path__ = list(spec.submodule_search_locations or ())
        sys.modules["speechtokenizer"] = package
    return importlib.import_module("speechtokenizer.model").SpeechTokenizer
