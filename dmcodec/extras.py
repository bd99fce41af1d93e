"""Packages that only some work needs: which extra of dmcodec installs each, and the error where one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from .errors import MissingDependencyError

# Module at the top of a package -> the extras that install it; the first is named where none fits better.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "PIL": ("evaluate",),
    "accelerate": ("train",),
    "ai_edge_litert": ("evaluate",),
    "av": ("media",),
    "cuda": ("trt", "trt-cu12", "trt-rtx"),
    "datasets": ("train", "datasets"),
    "fsspec": ("corpus",),
    "gdown": ("pull",),
    "google": ("triton",),
    "grpc": ("triton",),
    "huggingface_hub": ("hub", "pull"),
    "jiwer": ("evaluate",),
    "librosa": ("evaluate",),
    "matplotlib": ("bench", "evaluate"),
    "onnx": ("export", "train", "triton", "pull"),
    "onnxruntime": ("cpu", "gpu", "rtx-plugin"),
    "onnxruntime_ep_nv_tensorrt_rtx": ("rtx-plugin",),
    "pesq": ("evaluate",),
    "platformdirs": ("export", "train", "triton", "pull", "trt", "trt-cu12", "trt-rtx", "rtx-plugin", "demo", "hub"),
    "pyarrow": ("train", "corpus"),
    "pynvml": ("bench",),
    "pystoi": ("evaluate",),
    "rapidfuzz": ("evaluate",),
    "ray": ("ray",),
    "requests": ("evaluate",),
    "safetensors": ("export", "train", "triton", "pull"),
    "scipy": ("evaluate",),
    "speechmos": ("evaluate",),
    "tensorboard": ("train",),
    "tensorrt": ("trt", "trt-cu12"),
    "tensorrt_rtx": ("trt-rtx",),
    "torch": ("export", "train", "evaluate", "triton", "pull"),
    "transformers": ("train", "evaluate"),
    "tritonclient": ("triton",),
    "visqol": ("evaluate",),
}
# Module -> its name in messages, where users know another.
_NAMES = {
    "PIL": "pillow",
    "av": "PyAV",
    "visqol": "visqol-python",
    "ai_edge_litert": "ai-edge-litert",
    "cuda": "cuda-bindings",
    "onnxruntime_ep_nv_tensorrt_rtx": "onnxruntime-ep-nv-tensorrt-rtx",
}


def missing_package(error: ImportError, what: str, extra: str | None = None) -> MissingDependencyError:
    """Return the error for work that needs a package which can't be imported.

    Args:
        error: of the import.
        what: the work, for the message.
        extra: the extra to name, or several (`cpu,export`), where one of them has the package.
    """
    module = error.name or "a package"
    top = module.split(".")[0]
    if top not in EXTRAS:
        return MissingDependencyError(
            f"{what} needs {module}, which a package that is installed needs and is not there; "
            "run `pip check`, and install what it names"
        )
    name = _NAMES.get(top, top)
    fits = extra and set(extra.split(",")) & set(EXTRAS[top])
    chosen = extra if fits else EXTRAS[top][0]
    if is_installed(top) and top != module:
        return MissingDependencyError(
            f"{what} needs {module}, which the installed {name} does not have; "
            f'run `pip install --upgrade "dmcodec[{chosen}]"`'
        )
    return MissingDependencyError(f'{what} needs {name}, which is not installed; run `pip install "dmcodec[{chosen}]"`')


def require(what: str, extra: str, *modules: str) -> None:
    """Raise MissingDependencyError for the first of these modules that isn't installed."""
    for module in modules:
        if not is_installed(module):
            raise missing_package(ModuleNotFoundError(name=module), what, extra)


def is_installed(module: str) -> bool:
    """Return whether a module at the top of a package can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # hidden, or half imported
        return False


def refuse_together(distributions: Sequence[str], extras: Sequence[str]) -> None:
    """Raise MissingDependencyError if several of these distributions, which hold the same files, are installed.

    Args:
        distributions: names of distributions.
        extras: the extras to choose from.
    """
    found = [name for name in distributions if _is_distribution(name)]
    if len(found) > 1:
        choice = " or ".join(f'"dmcodec[{extra}]"' for extra in extras)
        raise MissingDependencyError(
            f"{' and '.join(found)} are both installed and overwrite each other's files; run `pip uninstall "
            f"{' '.join(f'{name} {name}-libs {name}-bindings' for name in found)}`, then install {choice}"
        )


def _is_distribution(name: str) -> bool:
    import importlib.metadata  # here: importing it takes as long as a quarter of the runtime

    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
