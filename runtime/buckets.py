"""Runs a graph at few shapes: lengths are padded to buckets, and batches to powers of two.

ONNX Runtime's CUDA provider keeps one plan for each convolution and makes another one whenever a shape changes. The
padding changes no result: graphs get the lengths of their items, or compute each frame by itself. What a graph returns
stays padded on its device, and the next graph takes it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmcodec.bundle import GraphSpec, TensorSpec
from dmcodec.config import CodecConfig
from dmcodec.errors import BackendError
from dmcodec.runtime.tensorrt.profiles import Profile, Shape
from dmcodec.runtime.tensorrt.shapes import PADDABLE, axis_sizes, output_sizes, shape_of

from .backend import DeviceTensor, Runner
from .bucket_shapes import PaddedValue, bucket_size

_BATCH = "batch"
_TIME = ("samples", "frames")

ToArray = Callable[[DeviceTensor], NDArray[Any]]


class BucketRunner:
    """Pads what `runner` gets, and returns `PaddedValue`s where that padded its results; see `Runner`.

    A batch that is larger than the profile's runs in parts.

    Args:
        name: of the graph.
        spec: of the graph.
        config: of the codec.
        runner: runs the graph.
        to_array: makes an array of a result of `runner`.
        profile: the shapes that the graph can run at; any by default.
    """

    def __init__(
        self,
        name: str,
        spec: GraphSpec,
        config: CodecConfig,
        runner: Runner,
        to_array: ToArray,
        profile: Profile | None = None,
    ) -> None:
        self._name, self._spec, self._config, self._runner = name, spec, config, runner
        self._to_array, self._profile = to_array, profile
        self._paddable = PADDABLE.get(name, (_BATCH,))
        self._bounds = {} if profile is None else _bounds(spec, profile)

    def run(self, inputs: Mapping[str, DeviceTensor]) -> list[DeviceTensor]:
        """Run the graph on arrays or on results of other runners."""
        shapes = {name: _shape(value) for name, value in inputs.items()}
        sizes = axis_sizes(self._name, self._spec.inputs, shapes)
        if sizes.get(_BATCH, 1) > (largest := self._bounds.get(_BATCH, (1, sizes.get(_BATCH, 1)))[1]):
            return self._run_parts(inputs, sizes[_BATCH], largest)
        padded = {axis: self._padded(axis, size) for axis, size in sizes.items()}
        for tensor in self._spec.inputs:
            if isinstance(value := inputs[tensor.name], PaddedValue):
                for axis, size in zip(tensor.axes, value.padded_shape, strict=True):
                    if isinstance(axis, str) and axis in self._paddable:
                        padded[axis] = max(padded[axis], size)
        self._check(sizes, padded)
        given = {
            tensor.name: self._input(tensor, inputs[tensor.name], shape_of(tensor, padded))
            for tensor in self._spec.inputs
        }
        outputs = self._runner.run(given)
        if padded == sizes:
            return outputs
        true = output_sizes(sizes, self._config)
        return [self._output(tensor, value, true) for tensor, value in zip(self._spec.outputs, outputs, strict=True)]

    def _run_parts(self, inputs: Mapping[str, DeviceTensor], batch: int, largest: int) -> list[DeviceTensor]:
        """Run a batch in parts of up to `largest` items; return arrays."""
        arrays = {name: self._array(value) for name, value in inputs.items()}
        parts = [
            self.run({t.name: _items(t, arrays[t.name], slice(at, at + largest)) for t in self._spec.inputs})
            for at in range(0, batch, largest)
        ]
        return [
            np.concatenate([self._array(part[index]) for part in parts], axis=tensor.axes.index(_BATCH))
            for index, tensor in enumerate(self._spec.outputs)
        ]

    def _array(self, value: DeviceTensor) -> NDArray[Any]:
        if isinstance(value, PaddedValue):
            return trimmed(value, self._to_array)
        return value if isinstance(value, np.ndarray) else self._to_array(value)

    def _padded(self, axis: str, size: int) -> int:
        """Return the size of the bucket that holds `size`; at most the largest of the profile, if that holds it."""
        if axis not in self._paddable:
            return size
        bucket = bucket_size(axis, size, self._config)
        least, largest = self._bounds.get(axis, (1, bucket))
        return max(least, bucket if bucket <= largest or size > largest else largest)

    def _check(self, sizes: Mapping[str, int], padded: Mapping[str, int]) -> None:
        """Raise BackendError for a shape outside of the profile: a provider would build for minutes, or fail."""
        for axis, (least, largest) in self._bounds.items():
            if not least <= padded[axis] <= largest:
                raise BackendError(
                    f"{self._name}: {axis} {sizes[axis]} is outside of the shapes {self._profile}; make the graphs "
                    "for it: `dmcodec export --format trt --flavour onnxruntime --bundle BUNDLE --profile A:B:C "
                    "--batch A:B:C`"
                )

    def _input(self, tensor: TensorSpec, value: DeviceTensor, shape: Shape) -> DeviceTensor:
        if isinstance(value, PaddedValue) and value.padded_shape == shape:
            return value.value
        if not isinstance(value, PaddedValue) and _shape(value) == shape:
            return value
        array = self._array(value)
        # Items that pad the batch have one sample or frame.
        result = np.full(shape, 1 if tensor.name == "lengths" else 0, array.dtype)
        result[tuple(slice(size) for size in array.shape)] = array
        return result

    def _output(self, tensor: TensorSpec, value: DeviceTensor, true: Mapping[str, int]) -> DeviceTensor:
        padded_shape = _shape(value)
        time = any(axis in self._paddable for axis in _TIME)
        shape = tuple(
            true[axis] if axis == _BATCH or (time and axis in _TIME) else size
            for axis, size in zip(tensor.axes, padded_shape, strict=True)
        )
        return value if shape == padded_shape else PaddedValue(value, padded_shape, shape)


def trimmed(value: PaddedValue, to_array: ToArray) -> NDArray[Any]:
    """Return a padded result as an array without its padding."""
    return to_array(value.value)[tuple(slice(size) for size in value.shape)].copy()


def _items(tensor: TensorSpec, array: NDArray[Any], part: slice) -> NDArray[Any]:
    """Return some items of a batch; all of a tensor without a batch axis."""
    return array[tuple(part if axis == _BATCH else slice(None) for axis in tensor.axes)] if tensor.axes else array


def _bounds(spec: GraphSpec, profile: Profile) -> dict[str, tuple[int, int]]:
    """Return the smallest and the largest size of each named axis."""
    found: dict[str, tuple[int, int]] = {}
    for tensor in spec.inputs:
        shapes = profile.inputs[tensor.name]
        for axis, least, largest in zip(tensor.axes, shapes.min, shapes.max, strict=True):
            if isinstance(axis, str):
                found[axis] = (least, largest)
    return found


def _shape(value: DeviceTensor) -> Shape:
    """Return the shape of an array, of an OrtValue, or of a padded value without its padding."""
    shape = value.shape
    return tuple(shape() if callable(shape) else shape)
