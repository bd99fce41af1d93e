"""Optimization profiles: the shapes that engines are built for, from durations and batch sizes to input shapes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dmcodec.bundle import OUTPUT, GraphSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import ArgumentError
from dmcodec.receptive_field import decoder_reach

MAX_DURATION_S = 600.0
MAX_BATCH = 256
# Durations of a push of a live stream: one frame, the usual 100 ms, and a second.
CHUNK_S = (0.0, 0.1, 1.0)
# Frames of the pushes that get a shape of their own in the graphs of a stream, which runs as one CUDA graph: a frame at
# a time, and the usual 100 ms.
PUSH_FRAMES = (1, 5)
STREAM_GRAPHS = ("decoder_recurrent", "decoder_upsampler")

Shape = tuple[int, ...]
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The smallest, usual and largest shape of an input. The builder optimises for the usual one."""

    min: Shape
    opt: Shape
    max: Shape

    def __str__(self) -> str:
        texts = ["x".join(map(str, shape)) or "scalar" for shape in (self.min, self.opt, self.max)]
        return texts[0] if len(set(texts)) == 1 else ":".join(texts)


@dataclasses.dataclass(frozen=True)
class Profile:
    """One optimization profile.

    Attributes:
        name: for tables and messages.
        inputs: the shapes of each input.
        fixed: whether batch and time have one size only.
    """

    name: str
    inputs: Mapping[str, Shapes]
    fixed: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{name} {shapes}' for name, shapes in self.inputs.items())})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        inputs = {
            name: {"min": list(shapes.min), "opt": list(shapes.opt), "max": list(shapes.max)}
            for name, shapes in self.inputs.items()
        }
        return {"name": self.name, "fixed": self.fixed, "inputs": inputs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Profile:
        """Read the values of `to_dict`; raise KeyError, TypeError or ValueError for anything else."""
        inputs = {
            name: Shapes(*(tuple(int(size) for size in shapes[bound]) for bound in ("min", "opt", "max")))
            for name, shapes in values["inputs"].items()
        }
        return cls(str(values["name"]), inputs, bool(values["fixed"]))


@dataclasses.dataclass(frozen=True)
class FixedShape:
    """One shape: `batch` clips of `duration_s`."""

    duration_s: float
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.duration_s:g}s" + (f"x{self.batch}" if self.batch > 1 else "")


@dataclasses.dataclass(frozen=True)
class ShapeRange:
    """All shapes between bounds: (smallest, usual, largest) duration in seconds, and the same of batch sizes."""

    durations_s: tuple[float, float, float] = (0.1, 5.0, 30.0)
    batches: tuple[int, int, int] = (1, 1, 16)

    def __str__(self) -> str:
        return f"{':'.join(f'{value:g}s' for value in self.durations_s)} x {':'.join(map(str, self.batches))}"


@dataclasses.dataclass(frozen=True)
class ShapeRequest:
    """The shapes that engines have to run: fixed shapes, a range of shapes, or both; at least one of them."""

    range: ShapeRange | None = ShapeRange()
    fixed_shapes: tuple[FixedShape, ...] = ()

    @classmethod
    def parse(cls, profile: str | None, batch: str | None, fixed_shapes: str | None) -> ShapeRequest:
        """Parse the options of the command line.

        Args:
            profile: "0.1s:5s:30s": smallest, usual and largest duration of the range.
            batch: "1:1:16": smallest, usual and largest batch size of the range.
            fixed_shapes: "1s,5s,5sx4": fixed shapes. With these alone there is no range.

        Raises:
            ArgumentError: a value is malformed, not in ascending order, or out of bounds.
        """
        shapes = parse_fixed_shapes(fixed_shapes) if fixed_shapes is not None else ()
        if shapes and profile is None and batch is None:
            return cls(None, shapes)
        default = ShapeRange()
        durations = parse_durations(profile) if profile is not None else default.durations_s
        return cls(ShapeRange(durations, parse_batches(batch) if batch is not None else default.batches), shapes)

    def profiles(self, name: str, spec: GraphSpec, config: CodecConfig) -> tuple[Profile, ...]:
        """Return the profiles of a graph: the fixed shapes, then the range.

        Those of a stream have ranges, then fixed shapes for its usual pushes, once its first frames are in.
        """
        if name in STREAM_GRAPHS:
            durations, batches = self._bounds()
            chunk = tuple(min(seconds, durations[2]) for seconds in CHUNK_S)
            ranges = {"chunk": chunk, "long": (0.0, durations[1], durations[2])}
            reach = decoder_reach(config)
            context_frames = reach.front + reach.past + reach.future  # context frames that a push runs besides its own
            ranged = (
                _profile(label, spec, config, values, (1, *batches[1:]), context_frames=context_frames)
                for label, values in ranges.items()
            )
            return (*ranged, *_pushes(spec, config, reach.past + reach.future))
        if name == "dequantizer":
            return (*self._whole(name, spec, config), *_pushes(spec, config, 0))
        return tuple(self._whole(name, spec, config))

    def _whole(self, name: str, spec: GraphSpec, config: CodecConfig) -> Iterator[Profile]:
        for shape in self.fixed_shapes:
            yield _profile(str(shape), spec, config, (shape.duration_s,) * 3, (shape.batch,) * 3, fixed=True)
        if self.range is not None:
            durations_s = self.range.durations_s
            if name == OUTPUT:  # takes no lengths, so that shorter clips can't be padded for it
                durations_s = (0.0, *durations_s[1:])
            yield _profile(str(self.range), spec, config, durations_s, self.range.batches)

    def _bounds(self) -> tuple[tuple[float, float, float], tuple[int, int, int]]:
        """Return (smallest, usual, largest) duration and batch size over all requested shapes."""
        durations = [shape.duration_s for shape in self.fixed_shapes]
        batches = [shape.batch for shape in self.fixed_shapes]
        if self.range is not None:
            durations, batches = [*durations, *self.range.durations_s], [*batches, *self.range.batches]
        usual = self.range or ShapeRange((durations[0],) * 3, (batches[0],) * 3)
        return (min(durations), usual.durations_s[1], max(durations)), (min(batches), usual.batches[1], max(batches))


def parse_durations(text: str) -> tuple[float, float, float]:
    """Parse "0.1s:5s:30s", or "5s", to seconds."""
    parts = [_duration(part, f"--profile {text!r}", "0.1s:5s:30s") for part in text.split(":")]
    return _three(parts, f"--profile {text!r}", "0.1s:5s:30s")


def parse_batches(text: str) -> tuple[int, int, int]:
    """Parse "1:1:16", or "4", to batch sizes."""
    parts = [_batch(part, f"--batch {text!r}", "1:1:16") for part in text.split(":")]
    return _three(parts, f"--batch {text!r}", "1:1:16")


def parse_fixed_shapes(text: str) -> tuple[FixedShape, ...]:
    """Parse "1s,5s,5sx4" to fixed shapes, without duplicates, in ascending order of their size."""
    option, example = f"--fixed-shapes {text!r}", "1s,5s,5sx4"
    shapes = set()
    for part in text.split(","):
        duration, _, batch = part.strip().partition("x")
        shapes.add(FixedShape(_duration(duration, option, example), _batch(batch, option, example) if batch else 1))
    return tuple(sorted(shapes, key=lambda shape: (shape.duration_s * shape.batch, shape.batch)))


def _duration(text: str, option: str, example: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ArgumentError(f"{option}: {text.strip()!r} is not a duration; write {example}, with units s or ms")
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1)
    if not 0 < seconds <= MAX_DURATION_S:
        raise ArgumentError(f"{option}: durations must be above 0 and up to {MAX_DURATION_S:g} s")
    return seconds


def _batch(text: str, option: str, example: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= MAX_BATCH:
        raise ArgumentError(f"{option}: {text.strip()!r} is not a batch size of 1 to {MAX_BATCH}; write {example}")
    return int(text)


def _three(parts: list[Any], option: str, example: str) -> tuple[Any, Any, Any]:
    if len(parts) == 1:
        parts = parts * 3
    if len(parts) != 3 or sorted(parts) != parts:
        raise ArgumentError(f"{option}: give one value, or smallest:usual:largest in ascending order, like {example}")
    return parts[0], parts[1], parts[2]


def _profile(
    name: str,
    spec: GraphSpec,
    config: CodecConfig,
    durations_s: tuple[float, ...],
    batches: tuple[int, ...],
    fixed: bool = False,
    context_frames: int = 0,
) -> Profile:
    """Return the profile of one graph. Codes may always have 1 to all levels.

    Args:
        name: of the profile.
        spec: of the graph.
        config: of the codec.
        durations_s, batches: smallest, usual and largest.
        fixed: whether these are one shape.
        context_frames: added to the frames of the usual and the largest shape.
    """
    levels, context = (1, config.n_q, config.n_q), (0, context_frames, context_frames)
    sizes = [_axis_sizes(config, *values) for values in zip(durations_s, batches, levels, context, strict=True)]
    inputs = {tensor.name: Shapes(*(shape_for(tensor.axes, size) for size in sizes)) for tensor in spec.inputs}
    return Profile(name, inputs, fixed)


def _pushes(spec: GraphSpec, config: CodecConfig, context_frames: int) -> Iterator[Profile]:
    """Yield the fixed shapes of pushes to one stream, whose windows hold `context_frames` frames more."""
    for frames in PUSH_FRAMES:
        sizes = {
            "batch": 1,
            "frames": frames + context_frames,
            "padded_frames": frames + decoder_reach(config).front_frames,
        }
        levels = (1, config.n_q, config.n_q)
        inputs = {
            tensor.name: Shapes(*(shape_for(tensor.axes, {**sizes, "n_q": n_q}) for n_q in levels))
            for tensor in spec.inputs
        }
        yield Profile(f"push of {frames}", inputs, fixed=True)


def shape_for(axes: Iterable[str | int], sizes: Mapping[str, int]) -> Shape:
    """Return the shape of a tensor whose named axes have these sizes."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in axes)


def _axis_sizes(config: CodecConfig, duration_s: float, batch: int, n_q: int, context_frames: int) -> dict[str, int]:
    samples = max(1, round(duration_s * config.sample_rate))
    frames = config.num_frames(samples) + context_frames
    return {
        "batch": batch,
        "samples": samples,
        "frames": frames,
        "n_q": n_q,
        "padded_frames": frames + decoder_reach(config).front_frames,
    }
