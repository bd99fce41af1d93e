"""The building half of the library: parse an ONNX graph into a strongly typed network and build its plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dmcodec.errors import ArgumentError, EngineBuildError
from dmcodec.files import locked, write_bytes
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.library import TENSORRT, Library, LogLine
from dmcodec.runtime.tensorrt.profiles import Profile

# FOLDED: The timing cache: what full TensorRT measured of its tactics, kept beside the engines for the next build.


# Called with a phase of the build, how much of it is done, and how much there is.
BuildProgress = Callable[[str, int, int], None]
# What the options are called in the library: a flag of BuilderFlag each.
FLAGS = {
    "version_compatible": "VERSION_COMPATIBLE",
    "refit": "REFIT",
    "strip_plan": "STRIP_PLAN",
    "tf32": "TF32",
}


@dataclasses.dataclass(frozen=True)
class BuildSettings:
    """What the builder is told, in the library's own names.

    Attributes:
        profiles: one optimization profile each, in this order.
        flags: names of BuilderFlag to set; TF32 is cleared where it isn't among them.
        hardware_compatibility: name of a HardwareCompatibilityLevel.
        workspace_bytes: bound of the builder's scratch memory; None for the library's own.
        compute_capabilities: names of ComputeCapability (SM86, ...) to build for ahead of time; RTX only.
        timing_cache: serialised, to start from; None for none.
    """

    profiles: tuple[Profile, ...]
    flags: tuple[str, ...] = ()
    hardware_compatibility: str | None = None
    workspace_bytes: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: bytes | None = None


@dataclasses.dataclass(frozen=True)
class Built:
    """A plan, what the logger said while it was built, and the timing cache behind it where there is one."""

    plan: bytes
    lines: tuple[LogLine, ...]
    timing_cache: bytes | None


def has_timing_cache(library: Library) -> bool:
    """Whether tactics are timed and remembered; RTX does neither (its functions of that name do nothing)."""
    return library.flavour == TENSORRT and hasattr(library.module, "ITimingCache")


def build_plan(
    library: Library, name: str, model: bytes, settings: BuildSettings, progress: BuildProgress | None = None
) -> Built:
    """Parses the ONNX graph `model` and builds its plan.

    Raises:
        EngineBuildError: the graph doesn't parse, a profile doesn't fit it, or the build fails.
        ArgumentError: the library has no such option.
    """
    trt = library.module
    with library.failing_as(EngineBuildError, f"{name}: {library.flavour} {library.version} failed") as lines:
        builder = library.checked(trt.Builder(library.logger), EngineBuildError, f"{name}: no builder", lines)
        typed = library.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        library.checked(network, EngineBuildError, f"{name}: no network", lines)
        parser = trt.OnnxParser(network, library.logger)
        if not parser.parse(model):
            raise EngineBuildError(_parse_error(library, name, parser))
        config = _config(library, name, builder, network, settings, lines)
        monitor = _monitor(trt, progress) if progress and hasattr(config, "progress_monitor") else None
        if monitor is not None:
            config.progress_monitor = monitor
        cache = _set_timing_cache(library, config, settings.timing_cache)
        host = builder.build_serialized_network(network, config)
        if monitor is not None and monitor.stopped_by is not None:
            raise monitor.stopped_by
        plan = bytes(library.checked(host, EngineBuildError, f"{name}: the build failed", lines))
        return Built(plan, tuple(lines), None if cache is None else bytes(cache.serialize()))


def _parse_error(library: Library, name: str, parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = "; ".join(
        f"node {error.node_name()} ({error.node_operator()}): {' '.join(error.desc().split())}" for error in errors
    )
    return f"{name}: {library.flavour} {library.version} can't parse this graph ({said or 'no reason given'})"


def _config(
    library: Library, name: str, builder: Any, network: Any, settings: BuildSettings, lines: Sequence[LogLine]
) -> Any:
    config = library.checked(builder.create_builder_config(), EngineBuildError, f"{name}: no configuration", lines)
    config.profiling_verbosity = library.module.ProfilingVerbosity.DETAILED  # else nothing can be inspected afterwards
    config.clear_flag(library.module.BuilderFlag.TF32)
    for flag in settings.flags:
        config.set_flag(_needed(library, "BuilderFlag", flag))
    if settings.hardware_compatibility:
        level = _needed(library, "HardwareCompatibilityLevel", settings.hardware_compatibility)
        config.hardware_compatibility_level = level
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(_needed(library, "MemoryPoolType", "WORKSPACE"), settings.workspace_bytes)
    if settings.compute_capabilities:
        config.num_compute_capabilities = len(settings.compute_capabilities)
        for index, capability in enumerate(settings.compute_capabilities):
            done = config.set_compute_capability(_needed(library, "ComputeCapability", capability), index)
            library.checked(done, EngineBuildError, f"{name}: compute capability {capability} is refused", lines)
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    for profile in settings.profiles:
        added = config.add_optimization_profile(_profile(builder, names, profile))
        library.checked(added, EngineBuildError, f"{name}: profile {profile} doesn't fit the graph", lines)
    return config


def _profile(builder: Any, names: Sequence[str], profile: Profile) -> Any:
    result = builder.create_optimization_profile()
    for name in names:
        shapes = profile.inputs[name]
        result.set_shape(name, shapes.min, shapes.opt, shapes.max)
    return result


def _needed(library: Library, enumeration: str, name: str) -> Any:
    member = library.member(enumeration, name)
    if member is None:
        known = ", ".join(library.members(enumeration)) or "nothing of that kind"
        raise ArgumentError(f"{library.flavour} {library.version} has no {enumeration}.{name}; it knows {known}")
    return member


def _set_timing_cache(library: Library, config: Any, start: bytes | None) -> Any | None:
    if not has_timing_cache(library):
        return None
    # Empty where the old one is of another version or GPU: the library then refuses it.
    for content in (start or b"", b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def merged_timing_caches(library: Library, parts: Sequence[bytes]) -> bytes:
    """Several serialised timing caches as one; those that the library refuses are left out."""
    with library.failing_as(EngineBuildError, "the timing cache can't be merged"):
        config = library.module.Builder(library.logger).create_builder_config()
        merged = config.create_timing_cache(b"")
        for part in parts:
            other = config.create_timing_cache(part)
            if other is not None:
                merged.combine(other, True)
        return bytes(merged.serialize())


def _monitor(trt: Any, progress: BuildProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Reports the phases. What is raised while it reports (Ctrl-C, too) stops the build and comes out behind it."""

        def __init__(self) -> None:
            super().__init__()
            self.stopped_by: BaseException | None = None
            self._totals: dict[str, int] = {}

        def phase_start(self, phase_name: str, _parent_phase: str | None, num_steps: int) -> None:
            self._totals[phase_name] = num_steps
            self._report(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            self._report(phase_name, self._totals.get(phase_name, 1))

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return self.stopped_by is None

        def _report(self, phase: str, done: int) -> None:
            try:
                if self.stopped_by is None:
                    progress(phase, done, max(1, self._totals.get(phase, 1)))
            except BaseException as error:  # noqa: BLE001 - it must not unwind through the library
                self.stopped_by = error

    return Monitor()


class TimingCache:
    """The timing cache of one library version and GPU in a folder. Safe between threads and processes."""

    def __init__(self, library: Library, folder: Path, gpu: Gpu | None) -> None:
        self._library = library
        architecture = gpu.architecture if gpu is not None else "none"
        self.path = folder / f"timing-{library.version}-{architecture}.cache"

    def load(self) -> bytes | None:
        """Its content; None where there is none, or the library keeps none."""
        if not has_timing_cache(self._library):
            return None
        try:
            return self.path.read_bytes()
        except OSError:  # it only saves time
            return None

    def merge(self, measured: bytes | None) -> None:
        """Adds what a build measured to what others have written meanwhile.

        Raises:
            OutputError: the folder can't be written to.
        """
        if measured is None:
            return
        with locked(self.path.with_name(f"{self.path.name}.lock")):
            old = self.load()
            try:
                merged = merged_timing_caches(self._library, [old, measured]) if old else measured
            except EngineBuildError:  # the old one is damaged
                merged = measured
            write_bytes(self.path, merged)
