"""Runs one graph by its engines: chooses the profile, pads and copies inputs, and removes the padding from results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import BackendError
from dmcodec.runtime.backend import DeviceTensor
from dmcodec.runtime.dlpack import contiguous_strides

from .arrays import DeviceArray, upload
from .engine import Engine
from .executor import Executor
from .memory import Block
from .profiles import Profile, Shape
from .resources import DeviceResources, PooledStream
from .shapes import ProfileChoice, axis_sizes, choose_profile, output_sizes, shape_of, size_bytes

ALIGNMENT_BYTES = 256  # of the addresses that TensorRT takes


class EngineRunner:
    """One graph; see `dmcodec.runtime.backend.Runner`."""

    def __init__(
        self,
        name: str,
        spec: GraphSpec,
        config: CodecConfig,
        engines: Sequence[tuple[Engine, Sequence[Profile]]],
        resources: DeviceResources,
        capture: bool = True,
    ) -> None:
        """Check the engines of a graph.

        Args:
            name: of the graph.
            spec: of the graph.
            config: of the codec.
            engines: engines of this graph, each with its profiles.
            resources: streams and memory.
            capture: run fixed shapes from captured CUDA graphs.

        Raises:
            BackendError: an engine's inputs or outputs have other types than the graph's.
        """
        self.name = name
        self._spec, self._config, self._resources = spec, config, resources
        self._profiles = [profiles for _, profiles in engines]
        for engine, _ in engines:
            self._check_types(engine)
        self._executor = Executor(name, spec, [engine for engine, _ in engines], resources, capture)

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        """Run on arrays, or on results of other graphs, which stay on the device; return DeviceArrays."""
        values = {tensor.name: _value(self.name, tensor, inputs) for tensor in self._spec.inputs}
        sizes = axis_sizes(self.name, self._spec.inputs, {name: value.shape for name, value in values.items()})
        choice = self._choose_profile(self._padded_sizes(values, sizes))
        with self._resources.lease_stream() as stream:
            acquired: list[Block[int]] = []
            try:
                blocks = {
                    tensor.name: self._input_block(stream, tensor, values[tensor.name], choice, acquired)
                    for tensor in self._spec.inputs
                }
                outputs = self._executor.run(stream, choice, blocks)
                for value in values.values():
                    if isinstance(value, DeviceArray):
                        value.block.record_use(stream.handle)
            finally:
                stream.release(acquired)
        true_sizes = output_sizes(sizes, self._config)
        return [self._result(tensor, true_sizes, *outputs[tensor.name]) for tensor in self._spec.outputs]

    def _padded_sizes(self, values: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, int]:
        """Return the sizes of axes; results on the device count with their padding."""
        padded = dict(sizes)
        for tensor in self._spec.inputs:
            value = values[tensor.name]
            if isinstance(value, DeviceArray):
                for axis, size in zip(tensor.axes, value.whole_shape or value.shape, strict=True):
                    if isinstance(axis, str):
                        padded[axis] = max(padded[axis], size)
        return padded

    def _choose_profile(self, sizes: Mapping[str, int]) -> ProfileChoice:
        choice = choose_profile(self.name, self._spec, self._profiles, sizes)
        if choice is None:
            requested = ", ".join(f"{tensor.name} {shape_of(tensor, sizes)}" for tensor in self._spec.inputs)
            known = "; ".join(str(profile) for profiles in self._profiles for profile in profiles)
            raise BackendError(
                f"{self.name}: no profile covers {requested}; there are: {known}. Build one that does: "
                "`dmcodec export --format trt --bundle BUNDLE --profile A:B:C --batch A:B:C`"
            )
        return choice

    def _input_block(
        self, stream: PooledStream, tensor: TensorSpec, value: Any, choice: ProfileChoice, acquired: list[Block[int]]
    ) -> Block[int]:
        """Return device memory with an input, padded to the chosen sizes; new memory is also added to `acquired`."""
        shape = shape_of(tensor, choice.sizes)
        if isinstance(value, DeviceArray) and value.whole_shape == shape and not value.block.memory % ALIGNMENT_BYTES:
            value.block.make_wait(stream.handle)
            return value.block
        block = self._resources.memory.acquire(size_bytes(shape, value.dtype), stream.handle)
        acquired.append(block)
        if isinstance(value, DeviceArray):
            self._resources.device.clear(block.memory, size_bytes(shape, value.dtype), stream.handle)
            value.copy_to(block.memory, contiguous_strides(shape), stream.handle)
        else:
            fill = 1 if tensor.name == "lengths" else 0  # items that pad the batch have one sample
            upload(self._resources, value, shape, fill, block, stream.handle)
        return block

    def _result(
        self, tensor: TensorSpec, true_sizes: Mapping[str, int], block: Block[int], padded_shape: Shape
    ) -> DeviceArray:
        shape = shape_of(tensor, true_sizes)
        result = DeviceArray.padded(self._resources, block, np.dtype(tensor.dtype), shape, padded_shape)
        if len(shape) != len(padded_shape) or any(a > b for a, b in zip(shape, padded_shape, strict=True)):
            raise BackendError(f"{self.name}: the engine gives {tensor.name} of shape {padded_shape}, expected {shape}")
        return result

    def _check_types(self, engine: Engine) -> None:
        expected = {tensor.name: np.dtype(tensor.dtype) for tensor in (*self._spec.inputs, *self._spec.outputs)}
        for name, dtype in expected.items():
            if engine.dtype(name) != dtype:
                raise BackendError(f"{self.name}: the engine has {name} as {engine.dtype(name)}, expected {dtype}")


def _value(graph: str, tensor: TensorSpec, inputs: Mapping[str, DeviceTensor]) -> Any:
    value = inputs.get(tensor.name)
    if value is None:
        raise BackendError(f"{graph}: input {tensor.name} is missing")
    array = value if isinstance(value, DeviceArray) else np.asarray(value)
    if array.dtype != np.dtype(tensor.dtype):
        raise BackendError(f"{graph}: input {tensor.name} is {array.dtype}, expected {tensor.dtype}")
    return array
