"""Which shape a request runs at: the profile that holds it, padded where padding changes nobody's result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import BackendError
from dmcodec.receptive_field import decoder_reach

from .profiles import Profile, Shape

# Axes that may be made longer. Clips that know their lengths, and frames that are computed one by one, don't mind what
# lies behind them; the streaming graphs have no lengths, so that their time is as it is.
PADDABLE: Mapping[str, tuple[str, ...]] = {
    "encoder": ("batch", "samples"),
    "quantizer": ("batch", "frames"),
    "dequantizer": ("batch", "frames"),
    "decoder": ("batch", "frames"),
    "decoder_recurrent": ("batch",),
    "decoder_upsampler": ("batch",),
}

# How much more work a fixed shape may be than the request, to be taken before a range: it is launched as one graph.
PADDING_FOR_FIXED = 1.25


@dataclasses.dataclass(frozen=True)
class Choice:
    """Where a request runs: the engine and its profile, by index, and the size of each axis there."""

    engine: int
    profile: int
    fixed: bool
    sizes: Mapping[str, int]


def axis_sizes(graph: str, tensors: Iterable[TensorSpec], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The size of each named axis.

    Raises:
        BackendError: an input is missing, or a shape doesn't fit its description or the others'.
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
    """The shape of a tensor where its axes have these sizes."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in tensor.axes)


def size_bytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    """Bytes of a tensor."""
    return math.prod(shape) * dtype.itemsize


def output_sizes(sizes: Mapping[str, int], config: CodecConfig) -> dict[str, int]:
    """The sizes of the outputs' axes from those of the inputs'."""
    if "samples" in sizes:
        return {**sizes, "frames": config.num_frames(sizes["samples"])}
    if "padded_frames" in sizes:
        return {**sizes, "frames": sizes["padded_frames"] - 2 * decoder_reach(config).front}
    return {**sizes, "samples": sizes["frames"] * config.hop_length}


def choose(
    graph: str, spec: GraphSpec, engines: Sequence[Sequence[Profile]], sizes: Mapping[str, int]
) -> Choice | None:
    """The profile that runs `sizes` with the least padding; None where none does.

    Args:
        graph: name of the graph.
        spec: its description.
        engines: the profiles of each engine.
        sizes: the least size of each axis.
    """
    found: list[tuple[float, Choice]] = []
    for engine, profiles in enumerate(engines):
        for index, profile in enumerate(profiles):
            padded = _padded(graph, spec, profile, sizes)
            if padded is not None:
                volume = math.prod(padded.values()) / (PADDING_FOR_FIXED if profile.fixed else 1)
                found.append((volume, Choice(engine, index, profile.fixed, padded)))
    return min(found, key=lambda item: item[0])[1] if found else None


def _padded(graph: str, spec: GraphSpec, profile: Profile, sizes: Mapping[str, int]) -> dict[str, int] | None:
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
