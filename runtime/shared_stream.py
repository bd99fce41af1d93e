"""ONNX Runtime on a CUDA stream and on memory that it shares with TensorRT; see `dmcodec.runtime.hybrid_backend`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import BackendError
from dmcodec.runtime.tensorrt.arrays import DeviceArray, upload
from dmcodec.runtime.tensorrt.memory import Block
from dmcodec.runtime.tensorrt.profiles import Shape
from dmcodec.runtime.tensorrt.resources import DeviceResources, PooledStream
from dmcodec.runtime.tensorrt.shapes import axis_sizes, output_sizes, shape_of, size_bytes

from .backend import DeviceTensor
from .frames import reflected
from .providers import reason_of

_DEVICE = "cuda"


class SharedStreamSession:
    """A session on the only stream of `resources`; see `dmcodec.runtime.backend.Runner`.

    It takes arrays, and what engines or other sessions of the stream returned, and returns `DeviceArray`s. It does not
    wait for its work.
    """

    def __init__(
        self, ort: Any, session: Any, name: str, spec: GraphSpec, config: CodecConfig, resources: DeviceResources
    ) -> None:
        self._session, self._name, self._spec = session, name, spec
        self._config, self._resources = config, resources
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        """Run the graph."""
        inputs = {name: _whole(value) for name, value in inputs.items()}  # before the stream is leased: it may copy
        sizes = axis_sizes(self._name, self._spec.inputs, {name: value.shape for name, value in inputs.items()})
        padded = dict(sizes)
        for tensor in self._spec.inputs:
            for axis, size in zip(tensor.axes, _bound_shape(inputs[tensor.name]), strict=True):
                if isinstance(axis, str):
                    padded[axis] = max(padded[axis], size)
        with self._resources.lease_stream() as stream:
            used: list[Block[int]] = []
            acquired: list[Block[int]] = []
            try:
                binding = self._session.io_binding()
                for tensor in self._spec.inputs:
                    block = self._input(stream, tensor, inputs[tensor.name], shape_of(tensor, padded), acquired)
                    used.append(block)
                    shape = shape_of(tensor, padded)
                    binding.bind_input(tensor.name, _DEVICE, 0, np.dtype(tensor.dtype), shape, block.memory)
                return self._run(stream, binding, sizes, padded)
            finally:
                for block in used:
                    block.record_use(stream.handle)
                for block in acquired:
                    self._resources.memory.release(block)

    def _run(
        self, stream: PooledStream, binding: Any, sizes: Mapping[str, int], padded: Mapping[str, int]
    ) -> list[DeviceTensor]:
        memory, results = self._resources.memory, list[DeviceArray]()
        true_sizes, padded_sizes = output_sizes(sizes, self._config), output_sizes(padded, self._config)
        for tensor in self._spec.outputs:
            dtype, shape = np.dtype(tensor.dtype), shape_of(tensor, padded_sizes)
            block = memory.acquire(size_bytes(shape, dtype), stream.handle)
            results.append(DeviceArray.padded(self._resources, block, dtype, shape_of(tensor, true_sizes), shape))
            binding.bind_output(tensor.name, _DEVICE, 0, dtype, shape, block.memory)
        try:
            self._session.run_with_iobinding(binding, self._options)
        except Exception as error:
            raise BackendError(f"{self._name}: failed to run in onnxruntime ({reason_of(error)})") from error
        finally:
            for result in results:
                result.block.record_use(stream.handle)
        return list(results)

    def _input(
        self, stream: PooledStream, tensor: TensorSpec, value: DeviceTensor, shape: Shape, acquired: list[Block[int]]
    ) -> Block[int]:
        """Return device memory that holds an input of `shape`; new memory is also added to `acquired`."""
        if isinstance(value, DeviceArray) and _bound_shape(value) == shape:
            value.block.make_wait(stream.handle)
            return value.block
        if not isinstance(value, np.ndarray):
            raise BackendError(f"{self._name}: {tensor.name} has shape {_bound_shape(value)}, expected {shape}")
        array = value.astype(tensor.dtype, copy=False)
        block = self._resources.memory.acquire(size_bytes(shape, array.dtype), stream.handle)
        acquired.append(block)
        upload(self._resources, array, shape, 0, block, stream.handle)
        return block


def reflected_steps(resources: DeviceResources, value: DeviceTensor, before: int, after: int) -> DeviceTensor:
    """Return steps [T, B, C] with more before and after them, as `dmcodec.nn.layers.reflect_pad` pads them.

    A result on a device stays there, unless it is shorter than its padding.
    """
    if not isinstance(value, DeviceArray):
        return reflected(np.asarray(value), before, after)
    value = _whole(value)
    steps, row_shape = value.shape[0], value.whole_shape[1:]
    if steps <= max(before, after):
        return reflected(np.asarray(value), before, after)
    row = size_bytes(row_shape, value.dtype)
    with resources.lease_stream() as stream:
        block = resources.memory.acquire((before + steps + after) * row, stream.handle)
        value.block.make_wait(stream.handle)
        copies = [(before, 0, steps)]
        copies += [(before - distance, distance, 1) for distance in range(1, before + 1)]
        copies += [(before + steps - 1 + distance, steps - 1 - distance, 1) for distance in range(1, after + 1)]
        for target, source, count in copies:
            resources.device.copy(
                block.memory + target * row, value.block.memory + source * row, count * row, stream.handle
            )
        value.block.record_use(stream.handle)
        block.record_use(stream.handle)
    length = before + steps + after
    return DeviceArray.padded(resources, block, value.dtype, (length, *value.shape[1:]), (length, *row_shape))


def _whole(value: DeviceTensor) -> DeviceTensor:
    """Return a value whose memory holds nothing else in between."""
    return value.dense() if isinstance(value, DeviceArray) and value.whole_shape is None else value


def _bound_shape(value: DeviceTensor) -> Shape:
    """Return the shape of what a session reads: of padded memory the beginning of the first axis, and all others."""
    if isinstance(value, DeviceArray):
        return (*value.shape[:1], *(value.whole_shape or value.shape)[1:])
    return tuple(value.shape)
