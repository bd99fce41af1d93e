"""Runs one graph by its engines: picks the profile, pads and moves data, and takes the padding off again."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import BackendError
from dmcodec.runtime.backend import DeviceTensor

from .engine import Engine
from .launcher import Launcher
from .memory import Block, DevicePool, Lane, Lanes
from .profiles import Profile, Shape
from .shapes import Choice, axis_sizes, choose, output_sizes, shape_of, size_bytes


class DeviceArray:
    """A result in device memory. It may be padded: `padded_shape` lies there, of which `shape` means something."""

    def __init__(
        self, pool: DevicePool, block: Block[int], dtype: np.dtype[Any], shape: Shape, padded_shape: Shape
    ) -> None:
        self.block, self.dtype, self.shape, self.padded_shape = block, dtype, shape, padded_shape
        weakref.finalize(self, pool.give, block).atexit = False

    @property
    def padded_bytes(self) -> int:
        """Size of what lies there."""
        return size_bytes(self.padded_shape, self.dtype)


def to_array(lanes: Lanes, value: DeviceArray) -> NDArray[Any]:
    """The result in host memory, without its padding."""
    with lanes.lease() as lane:
        pinned = lanes.pinned.take(value.padded_bytes)
        try:
            memory = pinned.memory[: value.padded_bytes]
            value.block.wait_on(lane.stream)
            lanes.device.download(memory, value.block.memory, lane.stream)
            value.block.used_on(lane.stream)
            pinned.used_on(lane.stream)
            lanes.device.synchronize(lane.stream)
            padded = memory.view(value.dtype).reshape(value.padded_shape)
            return padded[tuple(slice(size) for size in value.shape)].copy()
        finally:
            lanes.pinned.give(pinned)


class EngineRunner:
    """One graph; see `dmcodec.runtime.backend.Runner`."""

    def __init__(
        self,
        name: str,
        spec: GraphSpec,
        config: CodecConfig,
        engines: Sequence[tuple[Engine, Sequence[Profile]]],
        lanes: Lanes,
        capture: bool = True,
    ) -> None:
        """Takes engines that were checked to be of this graph, with their profiles.

        Args:
            name: of the graph.
            spec: of the graph.
            config: of the codec.
            engines: each with its profiles.
            lanes: streams and memory.
            capture: launch fixed shapes from captured graphs.

        Raises:
            BackendError: an engine's inputs or outputs are of other types than the graph's.
        """
        self.name = name
        self._spec, self._config, self._lanes = spec, config, lanes
        self._profiles = [profiles for _, profiles in engines]
        for engine, _ in engines:
            self._check_types(engine)
        self._launcher = Launcher(name, spec, [engine for engine, _ in engines], lanes, capture)

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        """Runs on arrays, or on results of other graphs, which stay on the device; gives DeviceArrays."""
        values = {tensor.name: _value(self.name, tensor, inputs) for tensor in self._spec.inputs}
        sizes = axis_sizes(self.name, self._spec.inputs, {name: value.shape for name, value in values.items()})
        choice = self._choose(self._lying_sizes(values, sizes))
        for tensor in self._spec.inputs:
            value = values[tensor.name]
            if isinstance(value, DeviceArray) and value.padded_shape != shape_of(tensor, choice.sizes):
                values[tensor.name] = to_array(self._lanes, value)  # rare: two graphs with different profiles
        with self._lanes.lease() as lane:
            taken: list[Block[int]] = []
            try:
                blocks = {
                    tensor.name: self._move_in(lane, tensor, values[tensor.name], choice, taken)
                    for tensor in self._spec.inputs
                }
                found = self._launcher.launch(lane, choice, blocks)
                for value in values.values():
                    if isinstance(value, DeviceArray):
                        value.block.used_on(lane.stream)
            finally:
                for block in taken:
                    block.used_on(lane.stream)
                    self._lanes.memory.give(block)
        logical = output_sizes(sizes, self._config)
        return [self._result(tensor, logical, *found[tensor.name]) for tensor in self._spec.outputs]

    def _lying_sizes(self, values: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, int]:
        """The sizes of axes, at least those of what lies on the device: what is padded there stays so."""
        lying = dict(sizes)
        for tensor in self._spec.inputs:
            value = values[tensor.name]
            if isinstance(value, DeviceArray):
                for axis, size in zip(tensor.axes, value.padded_shape, strict=True):
                    if isinstance(axis, str):
                        lying[axis] = max(lying[axis], size)
        return lying

    def _choose(self, sizes: Mapping[str, int]) -> Choice:
        choice = choose(self.name, self._spec, self._profiles, sizes)
        if choice is None:
            asked = ", ".join(f"{tensor.name} {shape_of(tensor, sizes)}" for tensor in self._spec.inputs)
            known = "; ".join(str(profile) for profiles in self._profiles for profile in profiles)
            raise BackendError(
                f"{self.name}: no profile holds {asked}; there are: {known}. Build one that does: "
                "`dmcodec export --format trt --bundle BUNDLE --profile A:B:C --batch A:B:C`"
            )
        return choice

    def _move_in(
        self, lane: Lane, tensor: TensorSpec, value: Any, choice: Choice, taken: list[Block[int]]
    ) -> Block[int]:
        """Device memory that holds an input, padded to the chosen sizes; what was taken for it goes into `taken`."""
        shape = shape_of(tensor, choice.sizes)
        if isinstance(value, DeviceArray):
            value.block.wait_on(lane.stream)
            return value.block
        count = size_bytes(shape, value.dtype)
        block = self._lanes.memory.take(count, lane.stream)
        taken.append(block)
        pinned = self._lanes.pinned.take(count)
        try:
            padded = pinned.memory[:count].view(value.dtype).reshape(shape)
            if value.shape != shape:
                padded.fill(1 if tensor.name == "lengths" else 0)  # behind the clips, clips of one sample
            padded[tuple(slice(size) for size in value.shape)] = value
            self._lanes.device.upload(block.memory, pinned.memory[:count], lane.stream)
            pinned.used_on(lane.stream)
        finally:
            self._lanes.pinned.give(pinned)
        return block

    def _result(
        self, tensor: TensorSpec, logical: Mapping[str, int], block: Block[int], padded_shape: Shape
    ) -> DeviceArray:
        shape = shape_of(tensor, logical)
        result = DeviceArray(self._lanes.memory, block, np.dtype(tensor.dtype), shape, padded_shape)
        if len(shape) != len(padded_shape) or any(a > b for a, b in zip(shape, padded_shape, strict=True)):
            raise BackendError(f"{self.name}: the engine gives {tensor.name} of shape {padded_shape}, expected {shape}")
        return result

    def _check_types(self, engine: Engine) -> None:
        wanted = {tensor.name: np.dtype(tensor.dtype) for tensor in (*self._spec.inputs, *self._spec.outputs)}
        for name, dtype in wanted.items():
            if engine.dtype(name) != dtype:
                raise BackendError(f"{self.name}: the engine has {name} as {engine.dtype(name)}, expected {dtype}")


def _value(graph: str, tensor: TensorSpec, inputs: Mapping[str, DeviceTensor]) -> Any:
    value = inputs.get(tensor.name)
    if isinstance(value, DeviceArray):
        return value
    if value is None:
        raise BackendError(f"{graph}: input {tensor.name} is missing")
    array = np.asarray(value)
    if array.dtype != np.dtype(tensor.dtype):
        raise BackendError(f"{graph}: input {tensor.name} is {array.dtype}, expected {tensor.dtype}")
    return array
