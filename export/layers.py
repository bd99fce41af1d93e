"""The layers of `dmcodec.nn` as ONNX nodes.

The graphs are written node by node instead of traced: tracing bakes the Python arithmetic of the padding into the
graph for one length, and breaks the LSTM for others. Here every length is an input, and weight norm is folded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dmcodec.errors import ExportError
from dmcodec.export.graph_builder import GraphBuilder
from dmcodec.nn.layers import Conv1d, ConvPadding, ConvTranspose1d, ResidualBlock, SkipLSTM


def add_layers(builder: GraphBuilder, layers: nn.Sequential, tensor: str, prefix: str) -> str:
    """Adds the layers in turn; `tensor` [B, C, T] is their input. Weights are named `prefix`.index...."""
    for index, layer in enumerate(layers):
        tensor = _add_layer(builder, layer, tensor, f"{prefix}.{index}")
    return tensor


def _add_layer(builder: GraphBuilder, layer: nn.Module, tensor: str, name: str) -> str:
    match layer:
        case nn.ELU():
            return builder.op("Elu", tensor)
        case Conv1d():
            return _conv(builder, layer, tensor, name)
        case ConvTranspose1d():
            return _conv_transpose(builder, layer, tensor, name)
        case ResidualBlock():
            shortcut = _conv(builder, layer.shortcut, tensor, f"{name}.shortcut")
            return builder.op("Add", shortcut, add_layers(builder, layer.block, tensor, f"{name}.block"))
        case SkipLSTM():
            return _skip_lstm(builder, layer, tensor, name)
    raise ExportError(f"{name}: no ONNX form is known for the layer {type(layer).__name__}")


def array(tensor: Tensor) -> NDArray[np.float32]:
    """A parameter as float32 values."""
    values: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return values


def _conv(builder: GraphBuilder, layer: Conv1d, tensor: str, name: str) -> str:
    padding = layer.padding
    return builder.op(
        "Conv",
        _reflect_pad(builder, tensor, padding),
        builder.weight(f"{name}.weight", array(layer.weights.weight())),
        builder.weight(f"{name}.bias", array(layer.weights.bias)),
        kernel_shape=[padding.kernel_size],
        strides=[padding.stride],
        dilations=[padding.dilation],
    )


def _conv_transpose(builder: GraphBuilder, layer: ConvTranspose1d, tensor: str, name: str) -> str:
    weight = array(layer.weights.weight())
    return builder.op(
        "ConvTranspose",
        tensor,
        builder.weight(f"{name}.weight", weight),
        builder.weight(f"{name}.bias", array(layer.weights.bias)),
        kernel_shape=[weight.shape[2]],
        strides=[layer.stride],
        pads=[layer.trim_left, layer.trim_right],  # not a Slice behind it: TensorRT can't build that
    )


def _reflect_pad(builder: GraphBuilder, tensor: str, padding: ConvPadding) -> str:
    """The reflect padding of `dmcodec.nn.layers.reflect_pad`, for any length from 1 sample up.

    The few padding samples are gathered by computed indices and concatenated: one copy of the signal, where zero
    extension, reflection and cut as three nodes would be three.
    """
    if padding.total == 0 and padding.stride == 1:
        return tensor
    op, ints = builder.op, builder.ints
    length = op("Gather", op("Shape", tensor), ints(2), axis=0)  # [1]
    pieces = [tensor]
    right = ints(padding.right)
    if padding.stride > 1:  # extra = -length mod stride fills the last window
        stride = ints(padding.stride)
        right = op("Add", right, op("Mod", op("Sub", stride, op("Mod", length, stride)), stride))
    # The signal is taken as `extended` samples long, zeros behind its end, so that it can be reflected.
    shortest = op("Add", op("Max", ints(padding.left), right), ints(1))
    extended = op("Max", length, shortest)
    if padding.left:
        mirrored = builder.constant(np.arange(padding.left, 0, -1, dtype=np.int64))
        pieces.insert(0, _gather_or_zero(builder, tensor, mirrored, length))
    if padding.right or padding.stride > 1:
        zero, one = (builder.constant(np.array(value, np.int64)) for value in (0, 1))
        positions = op("Add", op("Range", zero, op("Squeeze", right, ints(0)), one), length)
        around = op("Sub", op("Mul", op("Sub", extended, ints(1)), ints(2)), positions)
        sources = op("Where", op("Less", positions, extended), positions, around)
        pieces.append(_gather_or_zero(builder, tensor, sources, length))
    return op("Concat", *pieces, axis=2)


def _gather_or_zero(builder: GraphBuilder, tensor: str, indices: str, length: str) -> str:
    """tensor[:, :, indices], with zeros for indices at or beyond `length`."""
    op = builder.op
    inside = op("Min", indices, op("Sub", length, builder.ints(1)))
    return op("Mul", op("Gather", tensor, inside, axis=2), builder.cast(op("Less", indices, length)))


def _skip_lstm(builder: GraphBuilder, layer: SkipLSTM, tensor: str, name: str) -> str:
    op, lstm = builder.op, layer.lstm
    steps = op("Transpose", tensor, perm=[2, 0, 1])  # [T, B, C]
    output = steps
    for index in range(lstm.num_layers):
        directions = ["", "_reverse"] if lstm.bidirectional else [""]
        parts = {
            part: np.stack([_gates(getattr(lstm, f"{part}_l{index}{suffix}")) for suffix in directions])
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        output = op(
            "LSTM",
            output,
            builder.weight(f"{name}.weight_ih_{index}", parts["weight_ih"]),
            builder.weight(f"{name}.weight_hh_{index}", parts["weight_hh"]),
            builder.weight(f"{name}.bias_{index}", np.concatenate([parts["bias_ih"], parts["bias_hh"]], axis=1)),
            hidden_size=lstm.hidden_size,
            direction="bidirectional" if lstm.bidirectional else "forward",
        )  # [T, directions, B, C]
        if lstm.bidirectional:
            output = op("Reshape", op("Transpose", output, perm=[0, 2, 1, 3]), builder.ints(0, 0, -1))
        else:
            output = op("Squeeze", output, builder.ints(1))
    skip = op("Concat", steps, steps, axis=2) if lstm.bidirectional else steps
    return op("Transpose", op("Add", output, skip), perm=[1, 2, 0])


def _gates(parameter: Tensor) -> NDArray[np.float32]:
    """Torch stacks the gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    i, f, c, o = np.split(array(parameter), 4)
    return np.concatenate([i, o, f, c])
