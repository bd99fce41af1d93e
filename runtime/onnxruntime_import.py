"""The import of onnxruntime. No other file imports it, so that none does before its telemetry is switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dmcodec.errors import MissingDependencyError, first_line
from dmcodec.privacy import ONNXRUNTIME, wanted

DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")


def import_onnxruntime() -> Any:
    """Return the module onnxruntime.

    Raises:
        MissingDependencyError: it is not installed or can't be imported, or two distributions of it are installed.
    """
    try:
        module = load_module()
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "onnxruntime"
        problem = "is not installed" if missing else f"is installed, but can't be imported ({first_line(error)})"
        raise MissingDependencyError(
            f'onnxruntime {problem}; run `pip install "dmcodec[cpu]"`, or for CUDA `pip install "dmcodec[gpu]"`'
        ) from error
    if all(_is_installed(name, Path(module.__file__).parents[1]) for name in DISTRIBUTIONS):
        raise MissingDependencyError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; "
            'run `pip uninstall onnxruntime onnxruntime-gpu`, then install "dmcodec[cpu]" or "dmcodec[gpu]"'
        )
    return module


def load_module() -> Any:
    """Import onnxruntime and switch its events off, unless the user wants them.

    `import dmcodec` has set the variable that onnxruntime reads when it is imported. The call stops the events of a
    process that imported onnxruntime before dmcodec, except the one that was sent at that import; on Windows, where the
    system collects the events, it stops all.
    """
    import onnxruntime

    if not wanted(ONNXRUNTIME):
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def _is_installed(distribution: str, folder: Path) -> bool:
    """Return whether a folder of packages holds a distribution; importing importlib.metadata would take 10 ms."""
    name = distribution.replace("-", "_")
    return any(any(folder.glob(f"{name}-*.{kind}")) for kind in ("dist-info", "egg-info"))
