"""Convolutions that run step by step: each keeps the columns that it reads again, so that no column is computed twice.

Signals are channels-last, [batch, time, channels]. There a convolution is a matrix product, and a transposed one a
product and a reshape that moves nothing; a strided one reads its input as blocks of `stride` columns. Wide layers
compute two columns at a time, with fewer products (`minimal_filtering`).

A step of n frames gives n frames: what a layer reads to the right of a column delays its output by so many columns
(`SteppedSignal.lag`), and the shortcut of a residual block is delayed alike. A causal layer delays nothing. What the
layers keep is one tensor, the state. Zeros are the state after silence of zeros in all layers, which is not how a clip
begins: the ends of a clip, with their reflection, are for the graphs without a state.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from torch import nn

from dmcodec.errors import ExportError
from dmcodec.nn.layers import Conv1d, ConvTranspose1d, ResidualBlock
from dmcodec.precision import FP32

from . import minimal_filtering
from .graph_builder import TO_THE_END, GraphBuilder
from .layers import array
from .weights import TAPS, two_taps

LEAST_INPUTS = 64  # of a layer that computes its columns in pairs; narrower ones gain nothing


@dataclasses.dataclass(frozen=True)
class SteppedSignal:
    """A tensor [B, T, C] of a step.

    Attributes:
        tensor: its name.
        channels: C.
        lag: how many columns before that of the step's first frame its first column is; below 0, after it.
        per_frame: T for each frame of the step.
    """

    tensor: str
    channels: int
    lag: int = 0
    per_frame: int = 1


class SteppedLayers:
    """Adds layers to a graph that takes their state and returns the new one.

    Args:
        builder: of the graph.
        state: tensor with the state [B, size] of the step before, in the precision of the arithmetic.
    """

    def __init__(self, builder: GraphBuilder, state: str) -> None:
        self._builder, self._state = builder, state
        self._kept: list[str] = []
        self.size = 0

    def add(self, layers: nn.Sequential, signal: SteppedSignal, prefix: str, start: int = 0) -> SteppedSignal:
        """Add layers one after the other. Their weights are named `prefix`.index..., with the first index `start`.

        Raises:
            ExportError: a layer has no such form.
        """
        for index, layer in enumerate(layers, start):
            signal = self._add(layer, signal, f"{prefix}.{index}")
        return signal

    def delayed(self, signal: SteppedSignal, lag: int) -> SteppedSignal:
        """Return the signal with a lag that is at least its own."""
        kept = lag - signal.lag
        if kept < 0:
            raise ExportError(f"{self._builder.name}: its output is {-kept} columns later than what reads it expects")
        if not kept:
            return signal
        tensor = self._slice(self._after_kept(signal.tensor, kept, signal.channels), 0, -kept)
        return dataclasses.replace(signal, tensor=tensor, lag=lag)

    def new_state(self) -> str:
        """Return the state after the step: [B, size]."""
        return self._builder.op("Concat", *self._kept, axis=1)

    def _add(self, layer: nn.Module, signal: SteppedSignal, name: str) -> SteppedSignal:
        match layer:
            case nn.ELU():
                return dataclasses.replace(signal, tensor=elu(self._builder, signal.tensor))
            case Conv1d():
                return self._convolution(layer, signal, name)
            case ConvTranspose1d():
                return self._transposed(layer, signal, name)
            case ResidualBlock():
                return self._residual(layer, signal, name)
        raise ExportError(f"{name}: no form in steps is known for the layer {type(layer).__name__}")

    def _convolution(self, layer: Conv1d, signal: SteppedSignal, name: str) -> SteppedSignal:
        padding = layer.padding
        if padding.stride > 1:
            return self._strided(layer, signal, name)
        tensor = signal.tensor
        if kept := (padding.kernel_size - 1) * padding.dilation:
            tensor = self._after_kept(tensor, kept, signal.channels)
        output = convolution(self._builder, layer, tensor, name, signal.per_frame)
        return SteppedSignal(output, len(layer.weights.bias), signal.lag + padding.right, signal.per_frame)

    def _strided(self, layer: Conv1d, signal: SteppedSignal, name: str) -> SteppedSignal:
        padding, channels, builder = layer.padding, signal.channels, self._builder
        stride, kernel_size = padding.stride, padding.kernel_size
        if kernel_size % stride or padding.dilation != 1:
            raise ExportError(f"{name}: no form in steps is known for stride {stride} and kernel {kernel_size}")
        lag = -(-(signal.lag + padding.right) // stride)
        kept = lag * stride + padding.left - signal.lag
        columns = self._after_kept(signal.tensor, kept, channels)
        if later := kept - (kernel_size - stride):
            columns = self._slice(columns, 0, -later)
        inputs, outputs, taps = stride * channels, len(layer.weights.bias), kernel_size // stride
        blocks = builder.op("Reshape", columns, builder.ints(0, -1, inputs))
        weight, bias = _stored(builder, layer, name)
        weight = builder.op("Reshape", weight, builder.ints(outputs, channels, taps, stride))
        # -> [column of the block and channel, tap and output]
        weight = builder.op("Transpose", weight, perm=[3, 1, 2, 0])
        weight = builder.op("Reshape", weight, builder.ints(inputs, taps * outputs))
        per_frame = signal.per_frame // stride
        if taps == 2 and _in_pairs(builder, per_frame, inputs):
            taps_first = builder.op("Reshape", weight, builder.ints(inputs, taps, outputs))
            taps_first = builder.op("Transpose", taps_first, perm=[1, 0, 2])
            product = minimal_filtering.two_taps(builder, blocks, taps_first, bias, (inputs, outputs))
        else:
            product = _product_of_taps(builder, blocks, weight, bias, (inputs, outputs, taps))
        return SteppedSignal(product, outputs, lag, per_frame)

    def _transposed(self, layer: ConvTranspose1d, signal: SteppedSignal, name: str) -> SteppedSignal:
        builder, stride, weight = self._builder, layer.stride, array(layer.weights.weight())
        inputs, outputs, kernel_size = weight.shape
        if kernel_size != 2 * stride:
            raise ExportError(f"{name}: a transposed convolution of stride {stride} has kernel {kernel_size}, not 2x")
        columns = self._after_kept(signal.tensor, 1, inputs)
        # [channel and phase, inputs, tap] -> [tap and input, phase and channel]
        taps = builder.weight(f"{name}.{TAPS}", two_taps(weight, stride))
        taps = builder.op("Reshape", taps, builder.ints(outputs, stride, inputs, 2))
        taps = builder.op("Transpose", taps, perm=[3, 2, 1, 0])
        bias = builder.weight(f"{name}.bias", np.repeat(array(layer.weights.bias), stride), exact=True)
        bias = builder.op("Transpose", builder.op("Reshape", bias, builder.ints(outputs, stride)), perm=[1, 0])
        bias = builder.op("Reshape", bias, builder.ints(-1))
        if _in_pairs(builder, signal.per_frame, inputs):
            taps = builder.op("Reshape", taps, builder.ints(2, inputs, stride * outputs))
            phases = minimal_filtering.two_taps(builder, columns, taps, bias, (inputs, stride * outputs))
        else:
            taps = builder.op("Reshape", taps, builder.ints(2 * inputs, stride * outputs))
            pairs = _side_by_side(builder, columns, 2)
            phases = _affine(builder, pairs, taps, bias, (2 * inputs, stride * outputs))
        columns = builder.op("Reshape", phases, builder.ints(0, -1, outputs))
        return SteppedSignal(columns, outputs, signal.lag * stride + layer.trim.left, signal.per_frame * stride)

    def _residual(self, layer: ResidualBlock, signal: SteppedSignal, name: str) -> SteppedSignal:
        """Add a block whose inner layers read the columns that are kept of its input, as the shortcut does."""
        builder, (_, first, _, second) = self._builder, layer.block
        if not isinstance(first, Conv1d) or not isinstance(second, Conv1d) or second.padding.kernel_size != 1:
            raise ExportError(f"{name}: no form in steps is known for this residual block")
        padding = first.padding
        kept = (padding.kernel_size - 1) * padding.dilation
        columns = self._after_kept(signal.tensor, kept, signal.channels) if kept else signal.tensor
        inner = convolution(builder, first, elu(builder, columns), f"{name}.block.1", signal.per_frame)
        inner, last = elu(builder, inner), f"{name}.block.3"
        delayed = signal.tensor  # of a causal block
        if padding.right:
            delayed = self._slice(columns, kept - padding.right, -padding.right)
        if isinstance(layer.shortcut, Conv1d):
            total = _sum_of_products(builder, (last, second, inner), (f"{name}.shortcut", layer.shortcut, delayed))
        else:
            total = builder.op("Add", delayed, convolution(builder, second, inner, last))
        return dataclasses.replace(signal, tensor=total, lag=signal.lag + padding.right)

    def _after_kept(self, tensor: str, count: int, channels: int) -> str:
        """Return `tensor` with the last `count` columns of the step before in front; keep its last columns."""
        builder, op, ints = self._builder, self._builder.op, self._builder.ints
        part = op("Slice", self._state, ints(self.size), ints(self.size + count * channels), ints(1))
        self.size += count * channels
        columns = op("Concat", op("Reshape", part, ints(0, count, channels)), tensor, axis=1)
        self._kept.append(op("Reshape", self._slice(columns, -count, 0), builder.ints(0, count * channels)))
        return columns

    def _slice(self, tensor: str, start: int, end: int) -> str:
        """Return columns `start` to `end`, both as in Python but for an end of 0, which is that of the tensor."""
        ints = self._builder.ints
        return self._builder.op("Slice", tensor, ints(start), ints(end or TO_THE_END), ints(1))


def elu(builder: GraphBuilder, tensor: str) -> str:
    """Add max(x, exp(min(x, 0)) - 1), whose nodes take a third of the time of ONNX Runtime's Elu on a CPU."""
    zero, one = (builder.constant(np.array(value, builder.arithmetic.dtype)) for value in (0, 1))
    below = builder.op("Sub", builder.op("Exp", builder.op("Clip", tensor, "", zero)), one)
    return builder.op("Max", tensor, below)


def convolution(builder: GraphBuilder, layer: Conv1d, tensor: str, name: str, per_frame: int = 1) -> str:
    """Add a convolution of stride 1 without its padding, [B, T + reach, C] -> [B, T, outputs], as matrix products.

    What moves less memory is chosen: the columns of all taps are laid side by side, or the input is multiplied with the
    weights of all taps, and the results are shifted and summed. `per_frame` divides T.
    """
    outputs, inputs, taps = layer.weights.weight().shape
    weight, bias = _stored(builder, layer, name)
    if taps == 3 and layer.padding.dilation == 1 and _in_pairs(builder, per_frame, inputs):
        taps_first = builder.op("Transpose", weight, perm=[2, 1, 0])
        return minimal_filtering.three_taps(builder, tensor, taps_first, bias, (inputs, outputs))
    if taps * outputs > 2 * inputs:
        return _product_of_columns(builder, layer, tensor, weight, bias)
    weight = builder.op("Transpose", weight, perm=[1, 2, 0])
    weight = builder.op("Reshape", weight, builder.ints(inputs, taps * outputs))
    return _product_of_taps(builder, tensor, weight, bias, (inputs, outputs, taps), layer.padding.dilation)


def _in_pairs(builder: GraphBuilder, per_frame: int, inputs: int) -> bool:
    """Return whether columns run in pairs: where their number is even, the layer wide, and the arithmetic float32."""
    return per_frame % 2 == 0 and inputs >= LEAST_INPUTS and builder.arithmetic == FP32


def _stored(builder: GraphBuilder, layer: Conv1d, name: str) -> tuple[str, str]:
    """Return the weight [outputs, inputs, taps] and the bias of a layer, as they are stored."""
    weight, bias = array(layer.weights.weight()), array(layer.weights.bias)
    return builder.weight(f"{name}.weight", weight), builder.weight(f"{name}.bias", bias)


def _product_of_taps(
    builder: GraphBuilder, tensor: str, weight: str, bias: str, sizes: tuple[int, int, int], dilation: int = 1
) -> str:
    """Multiply with the weights of all taps, [inputs, tap and output], and sum the results, shifted.

    `sizes` are inputs, outputs and taps.
    """
    inputs, outputs, taps = sizes
    if taps > 1:  # the bias once, with the first tap
        rest = builder.constant(np.zeros((taps - 1) * outputs, builder.arithmetic.dtype))
        bias = builder.op("Concat", bias, rest, axis=0)
    product = _affine(builder, tensor, weight, bias, (inputs, taps * outputs))
    return _shifted_sum(builder, product, outputs, taps, dilation)


def _product_of_columns(builder: GraphBuilder, layer: Conv1d, tensor: str, weight: str, bias: str) -> str:
    """Multiply the columns of all taps with the weight as it is stored: to transpose it would make loading slow."""
    outputs, inputs, taps = layer.weights.weight().shape
    ints = builder.ints
    columns = _side_by_side(builder, tensor, taps, layer.padding.dilation)
    if inputs > 1 and taps > 1:  # [B, T, taps * C] -> [B, T, C * taps]
        split = builder.op("Reshape", columns, ints(0, -1, taps, inputs))
        columns = builder.op("Reshape", builder.op("Transpose", split, perm=[0, 1, 3, 2]), ints(0, -1, inputs * taps))
    stored = builder.op("Reshape", weight, ints(outputs, inputs * taps))
    return _affine(builder, columns, stored, bias, (inputs * taps, outputs), transposed=True)


def _affine(
    builder: GraphBuilder, tensor: str, weight: str, bias: str, sizes: tuple[int, int], transposed: bool = False
) -> str:
    """Return tensor @ weight + bias, [B, T, inputs] -> [B, T, outputs], for `sizes` inputs and outputs.

    Gemm adds the bias where it writes the product, which an Add after it would read and write again.
    """
    (inputs, outputs), op, ints = sizes, builder.op, builder.ints
    product = op("Gemm", op("Reshape", tensor, ints(-1, inputs)), weight, bias, transB=int(transposed))
    leading = op("Slice", op("Shape", tensor), ints(0), ints(2))
    return op("Reshape", product, op("Concat", leading, ints(outputs), axis=0))


def _sum_of_products(builder: GraphBuilder, *terms: tuple[str, Conv1d, str]) -> str:
    """Add the sum of convolutions of kernel 1 as one matrix product; of each its name, and its tensor [B, T, C]."""
    _, layers, tensors = zip(*terms, strict=True)
    weights, biases = zip(*(_stored(builder, layer, name) for name, layer, _ in terms), strict=True)
    inputs, outputs = sum(layer.weights.weight().shape[1] for layer in layers), len(layers[0].weights.bias)
    weight = builder.op("Reshape", builder.op("Concat", *weights, axis=1), builder.ints(outputs, inputs))
    bias = functools.reduce(functools.partial(builder.op, "Add"), biases)
    columns = builder.op("Concat", *tensors, axis=2)
    return _affine(builder, columns, weight, bias, (inputs, outputs), transposed=True)


def _side_by_side(builder: GraphBuilder, tensor: str, taps: int, dilation: int = 1) -> str:
    """Return [B, T + (taps - 1) * dilation, C] as [B, T, taps * C]: each column with those after it."""
    if taps == 1:
        return tensor
    ints = builder.ints
    shifted = [
        builder.op("Slice", tensor, ints(tap * dilation), ints((tap + 1 - taps) * dilation or TO_THE_END), ints(1))
        for tap in range(taps)
    ]
    return builder.op("Concat", *shifted, axis=2)


def _shifted_sum(builder: GraphBuilder, tensor: str, outputs: int, taps: int, dilation: int) -> str:
    """Return [B, T + (taps - 1) * dilation, taps * outputs] as [B, T, outputs]: tap i of the column i * dilation on."""
    if taps == 1:
        return tensor
    ints, shifted = builder.ints, []
    for tap in range(taps):
        starts = ints(tap * dilation, tap * outputs)
        ends = ints((tap + 1 - taps) * dilation or TO_THE_END, (tap + 1) * outputs)
        shifted.append(builder.op("Slice", tensor, starts, ends, ints(1, 2)))
    total = shifted[0]
    for part in shifted[1:]:
        total = builder.op("Add", total, part)
    return total
