"""What the user may ask of the builder, refused where the installed library or this machine can't do it."""

from __future__ import annotations

import dataclasses
from typing import Any

from dmcodec.errors import ArgumentError, GpuError
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.engine_store import GENERIC
from dmcodec.runtime.tensorrt.library import TENSORRT, TENSORRT_RTX, Library

from .builder import FLAGS

HARDWARE_COMPATIBILITY = {
    "none": None,
    "ampere-plus": "AMPERE_PLUS",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
}


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """Options that are passed through to the builder.

    Attributes:
        version_compatible: later versions of the library may run the engine (full TensorRT).
        hardware_compatibility: which other GPUs may: "none", "ampere-plus", "same-compute-capability" (full TensorRT).
        refit: its weights can be replaced.
        strip_plan: leaves out the weights that a refit can put back.
        workspace_mb: bound of the builder's scratch memory in MiB.
        tf32: allows a 10-bit mantissa in float32 products, which flips codes.
        compute_capabilities: "8.6", ...: GPUs to compile for ahead of time (RTX); none: for any, when first used.
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
        if self.workspace_mb is not None and not 1 <= self.workspace_mb <= 1 << 20:
            raise ArgumentError(f"--workspace-mb must be 1 to {1 << 20}, not {self.workspace_mb}")

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the builder's flags."""
        return tuple(flag for name, flag in FLAGS.items() if getattr(self, name))

    def to_key(self) -> dict[str, Any]:
        """What of them makes another engine, as JSON values."""
        values = dataclasses.asdict(self)
        del values["compute_capabilities"]  # the key's architectures
        return values

    def check(self, library: Library, gpu: Gpu | None) -> None:
        """Refuses what `library` can't do, or can't do without a GPU.

        Raises:
            ArgumentError: the library has no such option.
            GpuError: it has, but needs a GPU.
        """
        name = f"{library.flavour} {library.version}"
        if library.flavour == TENSORRT and gpu is None:
            raise GpuError(
                f"building an engine with {name} needs an NVIDIA GPU, and there is none; run this on the machine that "
                'will run the engine, or `pip install "dmcodec[trt-rtx]"` and add --flavour tensorrt-rtx'
            )
        for option, flag in FLAGS.items():
            if getattr(self, option) and library.member("BuilderFlag", flag) is None:
                raise ArgumentError(f"{_cli(option)}: {name} has no such option")
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
                raise GpuError(f"{_cli(option)}: {name} needs an NVIDIA GPU for this, and there is none")
        known = library.members("ComputeCapability")
        for capability in self.compute_capabilities:
            if compute_capability_name(capability) not in known:
                texts = [f"{member[2:-1]}.{member[-1]}" for member in known if member.startswith("SM")]
                raise ArgumentError(f"--compute-capability {capability}: {name} knows {', '.join(texts)}")

    def architectures(self, gpu: Gpu | None) -> tuple[str, ...]:
        """What the engine is bound to, for its key."""
        if self.compute_capabilities:
            return tuple(
                compute_capability_name(text).lower().replace("sm", "sm_") for text in self.compute_capabilities
            )
        return (gpu.architecture,) if gpu is not None else (GENERIC,)


def compute_capability_name(text: str) -> str:
    """SM86 for 8.6."""
    return f"SM{text.replace('.', '')}"


def _cli(option: str) -> str:
    return f"--{option.replace('_', '-')}"
