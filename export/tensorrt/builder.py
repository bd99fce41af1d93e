"""The builder half of TensorRT's API: parse an ONNX graph into a strongly typed network and build its plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dmcodec.errors import ArgumentError, EngineBuildError
from dmcodec.files import locked, write_bytes
from dmcodec.runtime.tensorrt.driver import Gpu
from dmcodec.runtime.tensorrt.library import TENSORRT, Library, LogLine, without_deprecations
from dmcodec.runtime.tensorrt.profiles import Profile

from .options import HARDWARE_COMPATIBILITY, BuildOptions, runtime_features

# Called with a phase of the build, the number of its steps that are done, and the number of all its steps.
BuildProgress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Built:
    """A built plan.

    Attributes:
        plan: the serialised engine.
        lines: the log of the build.
        timing_cache: the serialised timing cache after the build; None where the library has none.
    """

    plan: bytes
    lines: tuple[LogLine, ...]
    timing_cache: bytes | None


def build_plan(
    library: Library,
    name: str,
    model: bytes,
    profiles: Sequence[Profile],
    options: BuildOptions,
    timing_cache: bytes | None = None,
    progress: BuildProgress | None = None,
) -> Built:
    """Parse the ONNX graph `model` and build its plan.

    Args:
        library: the TensorRT to build with.
        name: the graph's name, for messages.
        model: a serialised ONNX graph with its weights.
        profiles: optimization profiles, in the engine's order.
        options: options of the builder.
        timing_cache: a serialised timing cache to start from.
        progress: called as the build goes on; an exception that it raises stops the build and is raised again.

    Raises:
        EngineBuildError: the graph does not parse, a profile does not fit it, or the build fails.
        ArgumentError: the library has no such option.
    """
    trt = library.module
    failed = f"{name}: {library.flavour} {library.version} failed"
    with library.errors_as(EngineBuildError, failed) as lines, without_deprecations():
        builder = library.checked(trt.Builder(library.logger), EngineBuildError, f"{name}: no builder", lines)
        typed = library.member("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        library.checked(network, EngineBuildError, f"{name}: no network", lines)
        parser = trt.OnnxParser(network, library.logger)
        if not parser.parse(model):
            raise EngineBuildError(_parse_error(library, name, parser))
        config = library.checked(builder.create_builder_config(), EngineBuildError, f"{name}: no configuration", lines)
        _set_options(library, name, config, options, lines)
        _add_profiles(library, name, builder, network, config, profiles, lines)
        monitor = _monitor(trt, progress) if progress and hasattr(config, "progress_monitor") else None
        if monitor is not None:
            config.progress_monitor = monitor
        cache = _set_timing_cache(library, config, timing_cache)
        host_memory = builder.build_serialized_network(network, config)
        if monitor is not None and monitor.stopped_by is not None:
            raise monitor.stopped_by
        plan = bytes(library.checked(host_memory, EngineBuildError, f"{name}: the build failed", lines))
        return Built(plan, tuple(lines), None if cache is None else bytes(cache.serialize()))


def _parse_error(library: Library, name: str, parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reasons = "; ".join(
        f"node {error.node_name()} ({error.node_operator()}): {' '.join(error.desc().split())}" for error in errors
    )
    return f"{name}: {library.flavour} {library.version} can't parse this graph ({reasons or 'no reason given'})"


def _set_options(library: Library, name: str, config: Any, options: BuildOptions, lines: Sequence[LogLine]) -> None:
    config.profiling_verbosity = library.module.ProfilingVerbosity.DETAILED  # the inspector needs it
    config.clear_flag(library.module.BuilderFlag.TF32)
    for flag in options.flags:
        config.set_flag(_required_member(library, "BuilderFlag", flag))
    for enumeration, member in runtime_features(library):
        if enumeration == "BuilderFlag":
            config.set_flag(library.member(enumeration, member))
        else:
            config.set_preview_feature(library.member(enumeration, member), True)
    if level := HARDWARE_COMPATIBILITY[options.hardware_compatibility]:
        config.hardware_compatibility_level = _required_member(library, "HardwareCompatibilityLevel", level)
    if options.workspace_mb is not None:
        workspace = _required_member(library, "MemoryPoolType", "WORKSPACE")
        config.set_memory_pool_limit(workspace, options.workspace_mb << 20)
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, capability in enumerate(options.compute_capability_names):
            done = config.set_compute_capability(_required_member(library, "ComputeCapability", capability), index)
            library.checked(done, EngineBuildError, f"{name}: compute capability {capability} is refused", lines)


def _add_profiles(
    library: Library,
    name: str,
    builder: Any,
    network: Any,
    config: Any,
    profiles: Sequence[Profile],
    lines: Sequence[LogLine],
) -> None:
    inputs = [network.get_input(index).name for index in range(network.num_inputs)]
    for profile in profiles:
        optimization_profile = builder.create_optimization_profile()
        for tensor in inputs:
            shapes = profile.inputs[tensor]
            optimization_profile.set_shape(tensor, shapes.min, shapes.opt, shapes.max)
        index = config.add_optimization_profile(optimization_profile)
        library.checked(index, EngineBuildError, f"{name}: profile {profile} doesn't fit the graph", lines)


def _required_member(library: Library, enumeration: str, name: str) -> Any:
    member = library.member(enumeration, name)
    if member is None:
        known = ", ".join(library.members(enumeration)) or "nothing of that kind"
        raise ArgumentError(f"{library.flavour} {library.version} has no {enumeration}.{name}; it knows {known}")
    return member


def _monitor(trt: Any, progress: BuildProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Reports the phases of a build. An exception of `progress` (Ctrl-C too) stops it and is kept."""

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
    """The timing cache of one library version and GPU: the measured run times of kernels, kept for the next build.

    It is a file in the folder of engines. Safe between threads and processes.
    """

    def __init__(self, library: Library, folder: Path, gpu: Gpu | None) -> None:
        self._library = library
        architecture = gpu.architecture if gpu is not None else "none"
        self.path = folder / f"timing-{library.version}-{architecture}.cache"

    def load(self) -> bytes | None:
        """Return its content; None where there is none, or the library has no timing cache."""
        if not has_timing_cache(self._library):
            return None
        try:
            return self.path.read_bytes()
        except OSError:  # a missing cache only makes the build slower
            return None

    def merge(self, measured: bytes | None) -> None:
        """Add what a build measured to the file, which other processes may have changed since.

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


def has_timing_cache(library: Library) -> bool:
    """Return whether the library keeps measured times. RTX does not: its functions of that name do nothing."""
    return library.flavour == TENSORRT and hasattr(library.module, "ITimingCache")


def merged_timing_caches(library: Library, parts: Sequence[bytes]) -> bytes:
    """Merge serialised timing caches; parts that the library refuses are left out."""
    with library.errors_as(EngineBuildError, "the timing cache can't be merged"):
        config = library.module.Builder(library.logger).create_builder_config()
        merged = config.create_timing_cache(b"")
        for part in parts:
            other = config.create_timing_cache(part)
            if other is not None:
                merged.combine(other, True)
        return bytes(merged.serialize())


def _set_timing_cache(library: Library, config: Any, start: bytes | None) -> Any | None:
    if not has_timing_cache(library):
        return None
    # The library refuses a cache of another version or GPU; then the build starts from an empty one.
    for content in (start or b"", b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None
