"""The choice of an engine and profile for a request, and of the padded shape that it runs at."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmcodec.bundle import DOWNSAMPLER, OUTPUT, GraphSpec, TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import BackendError
from dmcodec.receptive_field import decoder_reach

from .profiles import Profile, Shape

# Axes that may be padded without changing results: the graph has an input `lengths`, or computes each frame by itself.
# The streaming graphs have no lengths, so that only their batch may be padded.
PADDABLE: Mapping[str, tuple[str, ...]] = {
    "encoder": ("batch", "samples"),
    "quantizer": ("batch", "frames"),
    "dequantizer": ("batch", "frames"),
    "decoder": ("batch", "frames"),
    "decoder_recurrent": ("batch",),
    "decoder_upsampler": ("batch",),
    DOWNSAMPLER: ("batch", "samples"),
    OUTPUT: ("batch",),
}
# A fixed shape is preferred to a range of shapes up to this ratio of their work, since it runs as one CUDA graph.
PADDING_FOR_FIXED = 1.25


@dataclasses.dataclass(frozen=True)
class ProfileChoice:
    """The engine and profile that run a request.

    Attributes:
        engine, profile: indices.
        fixed: whether the profile has one shape only.
        sizes: the size of each axis, with padding.
    """

    engine: int
    profile: int
    fixed: bool
    sizes: Mapping[str, int]


def axis_sizes(graph: str, tensors: Iterable[TensorSpec], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Return the size of each named axis.

    Raises:
        BackendError: an input is missing, or shapes contradict the graph's description or each other.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors:
        shape = shapes.get(tensor.name)
        if shape is None:
            raise BackendError(f"{graph}: input {tensor.name} is missing")
        fits = len(shape) == len(tensor.axes)
        for axis, size in zip(tensor.axes, shape, strict=False):
            fits = fits and size >= 1 and (sizes.setdefault(axis, size) if isinstance(axis, str) else axis) == size
        if not fits:
            axes = ", ".join(f"{axis} {sizes[axis]}" if axis in sizes else str(axis) for axis in tensor.axes)
            raise BackendError(f"{graph}: input {tensor.name} has shape {shape}, expected ({axes})")
    return sizes


def shape_of(tensor: TensorSpec, sizes: Mapping[str, int]) -> Shape:
    """Return the shape of a tensor whose axes have these sizes."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in tensor.axes)


def size_bytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    """Return the bytes of a tensor."""
    return math.prod(shape) * dtype.itemsize


def output_sizes(sizes: Mapping[str, int], config: CodecConfig) -> dict[str, int]:
    """Return the sizes of the outputs' axes for those of the inputs."""
    if "samples" in sizes:
        return {**sizes, "frames": config.num_frames(sizes["samples"])}
    if "padded_frames" in sizes:
        return {**sizes, "frames": sizes["padded_frames"] - decoder_reach(config).front_frames}
    return {**sizes, "samples": sizes["frames"] * config.hop_length}


def choose_profile(
    graph: str, spec: GraphSpec, engines: Sequence[Sequence[Profile]], sizes: Mapping[str, int]
) -> ProfileChoice | None:
    """Choose the profile that runs `sizes` with the least padding; return None where no profile can.

    Args:
        graph: name of the graph.
        spec: of the graph.
        engines: the profiles of each engine.
        sizes: the size of each axis without padding.
    """
    candidates: list[tuple[float, ProfileChoice]] = []
    for engine, profiles in enumerate(engines):
        for index, profile in enumerate(profiles):
            padded = _padded(graph, spec, profile, sizes)
            if padded is not None:
                volume = math.prod(padded.values()) / (PADDING_FOR_FIXED if profile.fixed else 1)
                candidates.append((volume, ProfileChoice(engine, index, profile.fixed, padded)))
    return min(candidates, key=lambda item: item[0])[1] if candidates else None


def max_batch(graph: str, spec: GraphSpec, engines: Sequence[Sequence[Profile]], length: int) -> int:
    """Return the largest batch of items of `length` samples or frames that a profile runs; 0 without any."""
    largest = 0
    time = "samples" if graph == "encoder" else "frames"
    for profile in (profile for profiles in engines for profile in profiles):
        batches = [
            shapes.max[tensor.axes.index("batch")]
            for tensor, shapes in ((tensor, profile.inputs[tensor.name]) for tensor in spec.inputs)
            if {"batch", time} <= set(tensor.axes) and length <= shapes.max[tensor.axes.index(time)]
        ]
        largest = max(largest, *batches, 0)
    return largest


def _padded(graph: str, spec: GraphSpec, profile: Profile, sizes: Mapping[str, int]) -> dict[str, int] | None:
    """Return the sizes that a profile runs `sizes` at; None where it can't."""
    padded = dict(sizes)
    for tensor in spec.inputs:
        shapes = profile.inputs[tensor.name]
        for axis, least, largest in zip(tensor.axes, shapes.min, shapes.max, strict=True):
            if not isinstance(axis, str):
                continue
            if padded[axis] < least and axis in PADDABLE[graph]:
                padded[axis] = least
            if not least <= padded[axis] <= largest:
                return None
    return padded
