"""Options of the engine builder: checked against the installed library and this machine, and passed on to it."""

from __future__ import annotations

import dataclasses
from typing import Any

from dmcodec.errors import ArgumentError, GpuError
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.engine_store import GENERIC
from dmcodec.runtime.tensorrt.library import TENSORRT, TENSORRT_RTX, Library

# Option -> the library's BuilderFlag. A flag that is not set is cleared only for TF32, which the library sets itself.
FLAGS = {
    "version_compatible": "VERSION_COMPATIBLE",
    "refit": "REFIT",
    "strip_plan": "STRIP_PLAN",
    "tf32": "TF32",
}
# Value of `hardware_compatibility` -> the library's HardwareCompatibilityLevel.
HARDWARE_COMPATIBILITY = {
    "none": None,
    "ampere-plus": "AMPERE_PLUS",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
}
# What the runtime needs of an engine, where the library has it: no allocations of its own, so that runs can be captured
# (RTX), and scratch memory that shrinks with the shapes.
RUNTIME_FEATURES = (("BuilderFlag", "REQUIRE_USER_ALLOCATION"), ("PreviewFeature", "RUNTIME_ACTIVATION_RESIZE_10_10"))
_MAX_WORKSPACE_MB = 1 << 20


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """Options of the engine builder. The names are those of the command line's options.

    Attributes:
        version_compatible: later versions of the library can run the engine (full TensorRT only).
        hardware_compatibility: other GPUs that can run it: "none", "ampere-plus" or "same-compute-capability" (full
            TensorRT only).
        refit: the engine's weights can be replaced later.
        strip_plan: leave out the weights that a refit can put back.
        workspace_mb: limit of the builder's scratch memory in MiB; None for the library's own limit.
        tf32: allow a 10-bit mantissa in float32 products, which changes codes.
        compute_capabilities: "8.6", ...: GPUs to compile for ahead of time (RTX only). Without any, RTX compiles the
            engine for the GPU that first runs it.
    """

    version_compatible: bool = False
    hardware_compatibility: str = "none"
    refit: bool = False
    strip_plan: bool = False
    workspace_mb: int | None = None
    tf32: bool = False
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.hardware_compatibility not in HARDWARE_COMPATIBILITY:
            raise ArgumentError(
                f"--hardware-compatibility {self.hardware_compatibility!r} is not known; "
                f"use one of {', '.join(HARDWARE_COMPATIBILITY)}"
            )
        if self.workspace_mb is not None and not 1 <= self.workspace_mb <= _MAX_WORKSPACE_MB:
            raise ArgumentError(f"--workspace-mb must be 1 to {_MAX_WORKSPACE_MB}, not {self.workspace_mb}")

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the BuilderFlags to set."""
        return tuple(flag for option, flag in FLAGS.items() if getattr(self, option))

    @property
    def compute_capability_names(self) -> tuple[str, ...]:
        """The library's names of `compute_capabilities`: "SM86" for "8.6"."""
        return tuple(f"SM{text.replace('.', '')}" for text in self.compute_capabilities)

    def architectures(self, gpu: Gpu | None) -> tuple[str, ...]:
        """Return the GPU architectures that the engine is bound to, for its key: "sm_86", ..., or "generic"."""
        if self.compute_capabilities:
            return tuple(name.replace("SM", "sm_") for name in self.compute_capability_names)
        return (gpu.architecture,) if gpu is not None else (GENERIC,)

    def to_key(self, library: Library) -> dict[str, Any]:
        """Return the options for an engine's key, as JSON values; compute capabilities are its architectures."""
        values = dataclasses.asdict(self)
        del values["compute_capabilities"]
        return {**values, "runtime_features": [member for _, member in runtime_features(library)]}

    def check(self, library: Library, gpu: Gpu | None) -> None:
        """Refuse options that `library` does not have, or has only with a GPU.

        Raises:
            ArgumentError: the library has no such option.
            GpuError: the build or the option needs a GPU, and there is none.
        """
        name = f"{library.flavour} {library.version}"
        if library.flavour == TENSORRT and gpu is None:
            raise GpuError(
                f"building an engine with {name} needs an NVIDIA GPU, and there is none; run this on the machine that "
                'will run the engine, or `pip install "dmcodec[trt-rtx]"` and add --flavour tensorrt-rtx'
            )
        for option, flag in FLAGS.items():
            if getattr(self, option) and library.member("BuilderFlag", flag) is None:
                raise ArgumentError(f"{_as_typed(option)}: {name} has no such option")
        if library.flavour == TENSORRT_RTX:
            self._check_rtx(library, name, gpu)
        elif self.compute_capabilities:
            raise ArgumentError(
                f"--compute-capability: {name} builds for the GPU of this machine only; "
                "use --hardware-compatibility, or --flavour tensorrt-rtx"
            )

    def _check_rtx(self, library: Library, name: str, gpu: Gpu | None) -> None:
        if self.version_compatible:
            raise ArgumentError(f"--version-compatible: {name} has no lean runtime that could run such engines")
        if self.hardware_compatibility != "none":
            raise ArgumentError(
                f"--hardware-compatibility: {name} builds engines for any GPU that it knows; "
                "name some with --compute-capability to compile for them ahead of time"
            )
        for option in ("refit", "strip_plan"):
            if getattr(self, option) and gpu is None:
                raise GpuError(f"{_as_typed(option)}: {name} needs an NVIDIA GPU for this, and there is none")
        known = library.members("ComputeCapability")
        for text, member in zip(self.compute_capabilities, self.compute_capability_names, strict=True):
            if member not in known:
                texts = [f"{known_name[2:-1]}.{known_name[-1]}" for known_name in known if known_name.startswith("SM")]
                raise ArgumentError(f"--compute-capability {text}: {name} knows {', '.join(texts)}")


def runtime_features(library: Library) -> list[tuple[str, str]]:
    """Return the RUNTIME_FEATURES that a library has."""
    return [names for names in RUNTIME_FEATURES if library.member(*names) is not None]


def _as_typed(option: str) -> str:
    """Return an option as it is typed on the command line."""
    return f"--{option.replace('_', '-')}"
