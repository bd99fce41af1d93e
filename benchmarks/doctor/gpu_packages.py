"""The packages for a GPU: which CUDA each is for, what the driver runs, and what can't be installed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .probe import Outcome
from .result import MISSING, OK, PROBLEM, Finding

Installed = Callable[[str], str | None]  # the version of a distribution; None where it isn't installed

# Distributions of full TensorRT: name -> the CUDA that it is for, and the extra that installs it. `tensorrt` stands for
# one of the others.
TENSORRT_PACKAGES: Mapping[str, tuple[int, str]] = {"tensorrt-cu13": (13, "trt"), "tensorrt-cu12": (12, "trt-cu12")}
# The oldest driver for each CUDA, of NVIDIA's table.
_DRIVERS = {12: 525, 13: 580}
_BOTH = (
    "tensorrt-cu13 and tensorrt-cu12 overwrite each other's files",
    "`pip uninstall tensorrt-cu13-libs tensorrt-cu13-bindings tensorrt-cu13 tensorrt-cu12-libs tensorrt-cu12-bindings "
    'tensorrt-cu12`, then `pip install "dmcodec[trt]"` or "dmcodec[trt-cu12]"',
)


def tensorrt_words(installed: Installed) -> str:
    """Return the distributions of full TensorRT and their CUDA, in words; empty where there are none."""
    found = [f"{name} for CUDA {cuda}" for name, (cuda, _) in TENSORRT_PACKAGES.items() if installed(name)]
    return ", ".join(found or (["tensorrt"] if installed("tensorrt") else []))


def tensorrt_extra(driver_cuda: str | None) -> str:
    """Return the command that installs full TensorRT for the CUDA of the driver."""
    extra = "trt-cu12" if driver_cuda is not None and _major(driver_cuda) == 12 else "trt"
    return f'`pip install "dmcodec[{extra}]"` (from the NVIDIA package index)'


def package_findings(outcomes: Mapping[str, Outcome], installed: Installed) -> Iterator[Finding]:
    """Yield the findings about packages that don't fit the driver or each other; one that all is well otherwise."""
    driver = outcomes["driver"].value["cuda"] if outcomes["driver"].ok else None
    onnxruntime = outcomes["onnxruntime"].value if outcomes["onnxruntime"].ok else {}
    problems = [
        *_clashes(installed),
        *_tensorrt_of_onnxruntime(onnxruntime),
        *_bindings(installed),
        *(_driver(driver, _needs(onnxruntime, installed)) if driver is not None else ()),
    ]
    if not problems:
        words = [f"{name} for CUDA {cuda}" for name, cuda, _ in _needs(onnxruntime, installed)]
        if words:
            yield Finding("GPU packages", OK, f"{', '.join(words)}; driver: CUDA {driver or 'unknown'}")
    for found, way_out in problems:
        yield Finding("GPU packages", PROBLEM, found, way_out)


def plugin_finding(outcome: Outcome, installed: Installed) -> Finding:
    """Return the state of ONNX Runtime's plugin for TensorRT-RTX."""
    name = "onnxruntime nv-tensorrt-rtx"
    if outcome.ok:
        return Finding(name, OK, f"plugin {outcome.value['version']}, registered; {outcome.value['device']}")
    status = PROBLEM if installed("onnxruntime-ep-nv-tensorrt-rtx") else MISSING
    return Finding(name, status, outcome.reason or "", '`pip install "dmcodec[cpu,rtx-plugin]"`')


def _needs(onnxruntime: Mapping[str, Any], installed: Installed) -> list[tuple[str, int, str]]:
    """Return the packages with the CUDA that each is for, and the way out where the driver is older than that."""
    found: list[tuple[str, int, str]] = []
    if installed("onnxruntime-gpu") and (cuda := str(onnxruntime.get("cuda") or "")):
        older = '`pip install "onnxruntime-gpu[cuda,cudnn]<1.27"`, the last for CUDA 12'
        found.append(("onnxruntime-gpu", _major(cuda), older))
    for name, (cuda_major, _) in TENSORRT_PACKAGES.items():
        if installed(name):
            older = f'`pip uninstall {name} {name}-libs {name}-bindings`, then `pip install "dmcodec[trt-cu12]"`'
            found.append((name, cuda_major, older))
    if installed("tensorrt-rtx"):
        found.append(("tensorrt-rtx", 13, "there is none for CUDA 12 in the extra trt-rtx"))
    if version := installed("cuda-bindings"):
        found.append(("cuda-bindings", _major(version), '`pip install "dmcodec[trt-cu12]"`'))
    return found


def _clashes(installed: Installed) -> Iterator[tuple[str, str]]:
    if all(map(installed, TENSORRT_PACKAGES)):
        yield _BOTH


def _tensorrt_of_onnxruntime(onnxruntime: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the conflict of `[gpu,trt]`: ONNX Runtime's TensorRT provider links an older TensorRT."""
    if conflict := onnxruntime.get("tensorrt_conflict"):
        yield conflict[0], conflict[1]


def _bindings(installed: Installed) -> Iterator[tuple[str, str]]:
    """Yield where cuda-bindings are for another CUDA than TensorRT."""
    version = installed("cuda-bindings")
    chosen = [(name, *entry) for name, entry in TENSORRT_PACKAGES.items() if installed(name)]
    if version is not None and len(chosen) == 1 and _major(version) != chosen[0][1]:
        name, cuda, extra = chosen[0]
        yield (
            f"cuda-bindings {version} are for CUDA {_major(version)}, {name} is for CUDA {cuda}",
            f'`pip install "dmcodec[{extra}]"`',
        )


def _driver(driver: str, needs: Sequence[tuple[str, int, str]]) -> Iterator[tuple[str, str]]:
    """Yield the packages whose CUDA the driver does not run."""
    for name, cuda, older in needs:
        if _major(driver) < cuda:
            newer = (
                f"update the NVIDIA driver to {_DRIVERS[cuda]} or newer" if cuda in _DRIVERS else "update the driver"
            )
            yield f"{name} is for CUDA {cuda}, and the driver runs CUDA up to {driver}", f"{newer}; or {older}"


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdecimal() else 0
