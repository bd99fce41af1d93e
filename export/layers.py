"""The layers of `dmcodec.nn` as ONNX nodes, for batches in which every item has its own length.

The graphs are built node by node, not traced. Tracing stores the padding, which is Python arithmetic, as constants for
one length, and it breaks the LSTM for other lengths. Here each item's length is an input of the graph: its reflect
padding is placed at the item's end, and the backward LSTM starts there, so that other items of the batch can't change
its result. Weight norm is folded into the weights.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dmcodec.errors import ExportError
from dmcodec.nn.layers import Conv1d, ConvPadding, ConvTranspose1d, ResidualBlock, SkipLSTM

from .graph_builder import GraphBuilder


@dataclasses.dataclass(frozen=True)
class Signal:
    """Names of a tensor [B, C, T] and of the lengths [B] (int64) of its items. Values beyond a length are undefined."""

    tensor: str
    lengths: str


def add_layers(builder: GraphBuilder, layers: nn.Sequential, signal: Signal, prefix: str, start: int = 0) -> Signal:
    """Add layers one after the other. Their weights are named `prefix`.index..., with the first index `start`.

    Raises:
        ExportError: a layer has no ONNX form here.
    """
    for index, layer in enumerate(layers, start):
        signal = _add_layer(builder, layer, signal, f"{prefix}.{index}")
    return signal


def _add_layer(builder: GraphBuilder, layer: nn.Module, signal: Signal, name: str) -> Signal:
    match layer:
        case nn.ELU():
            return Signal(builder.op("Elu", signal.tensor), signal.lengths)
        case Conv1d():
            return _conv(builder, layer, signal, name)
        case ConvTranspose1d():
            return _conv_transpose(builder, layer, signal, name)
        case ResidualBlock():
            shortcut = _conv(builder, layer.shortcut, signal, f"{name}.shortcut")
            block = add_layers(builder, layer.block, signal, f"{name}.block")
            return Signal(builder.op("Add", shortcut.tensor, block.tensor), signal.lengths)
        case SkipLSTM():
            return _skip_lstm(builder, layer, signal, name)
    raise ExportError(f"{name}: no ONNX form is known for the layer {type(layer).__name__}")


def array(tensor: Tensor) -> NDArray[np.float32]:
    """Return a parameter as float32 values."""
    values: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return values


def _conv(builder: GraphBuilder, layer: Conv1d, signal: Signal, name: str) -> Signal:
    padded = _reflect_pad(builder, signal, layer.padding, layer.weights.weight().shape[1])
    return Signal(convolution(builder, layer, padded, name), _strided(builder, signal.lengths, layer.padding.stride))


def convolution(builder: GraphBuilder, layer: Conv1d, tensor: str, name: str) -> str:
    """Add a convolution without its padding."""
    return builder.op(
        "Conv",
        tensor,
        builder.weight(f"{name}.weight", array(layer.weights.weight())),
        builder.weight(f"{name}.bias", array(layer.weights.bias)),
        kernel_shape=[layer.padding.kernel_size],
        strides=[layer.padding.stride],
        dilations=[layer.padding.dilation],
    )


def _strided(builder: GraphBuilder, lengths: str, stride: int) -> str:
    """Return ceil(lengths / stride)."""
    if stride == 1:
        return lengths
    return builder.op("Div", builder.op("Add", lengths, builder.ints(stride - 1)), builder.ints(stride))


def _conv_transpose(builder: GraphBuilder, layer: ConvTranspose1d, signal: Signal, name: str) -> Signal:
    weight = array(layer.weights.weight())
    tensor = builder.op(
        "ConvTranspose",
        _with_zero_after_end(builder, signal, weight.shape[0]),
        builder.weight(f"{name}.weight", weight),
        builder.weight(f"{name}.bias", array(layer.weights.bias)),
        kernel_shape=[weight.shape[2]],
        strides=[layer.stride],
        pads=[layer.trim_left, layer.trim_right],  # TensorRT can't build a Slice after it
    )
    return Signal(tensor, builder.op("Mul", signal.lengths, builder.ints(layer.stride)))


def _with_zero_after_end(builder: GraphBuilder, signal: Signal, channels: int) -> str:
    """Set the step after each item's end to zero.

    An item's last outputs depend on one step beyond its end. For a clip alone there is nothing, which counts as zero.
    """
    op, ints = builder.op, builder.ints
    end = _column(builder, signal.lengths)  # [B, 1]
    inside = op("Min", end, op("Sub", _time(builder, signal.tensor), ints(1)))
    index = _over_channels(builder, inside, channels)
    kept = op("Mul", op("GatherElements", signal.tensor, index, axis=2), _mask(builder, op("Less", inside, end)))
    return op("ScatterElements", signal.tensor, index, kept, axis=2)


def _reflect_pad(builder: GraphBuilder, signal: Signal, padding: ConvPadding, channels: int) -> str:
    """Add the reflect padding of `dmcodec.nn.layers.reflect_pad` at each item's own ends, for any length from 1 up.

    Only the padding columns are computed: one concatenation makes room for them, and a scatter writes those of the
    right side at each item's end.
    """
    # The largest right padding of any length: `right`, and the extra that fills the last window.
    columns = padding.right + padding.stride - 1
    if padding.left == 0 and columns == 0:
        return signal.tensor
    op, ints = builder.op, builder.ints
    tensor, length = signal.tensor, _column(builder, signal.lengths)  # [B, 1]
    pieces = [tensor]
    if padding.left:
        mirrored = op("Min", ints(*range(padding.left, 0, -1)), op("Add", length, ints(padding.left)))  # [B, left]
        pieces.insert(0, _gather_or_zero(builder, signal, mirrored, channels))
    if columns == 0:
        return op("Concat", *pieces, axis=2)
    right = ints(padding.right)
    if padding.stride > 1:  # extra = -length mod stride
        stride = ints(padding.stride)
        right = op("Add", right, op("Mod", op("Sub", stride, op("Mod", length, stride)), stride))
    # A signal that is too short to be reflected is extended with zeros to `extended` samples.
    extended = op("Max", length, op("Add", op("Max", ints(padding.left), right), ints(1)))
    positions = op("Add", length, ints(*range(columns)))  # [B, columns]
    around = op("Sub", op("Mul", op("Sub", extended, ints(1)), ints(2)), positions)
    sources = op("Where", op("Less", positions, extended), positions, around)
    values = _gather_or_zero(builder, signal, sources, channels)
    room = op("Concat", *pieces, values, axis=2)
    targets = _over_channels(builder, op("Add", positions, ints(padding.left)), channels)
    return op("ScatterElements", room, targets, values, axis=2)


def _gather_or_zero(builder: GraphBuilder, signal: Signal, indices: str, channels: int) -> str:
    """Return tensor[b, :, indices[b]] as [B, C, columns], with zeros for indices at or beyond the item's length."""
    op, ints = builder.op, builder.ints
    last = op("Sub", _time(builder, signal.tensor), ints(1))
    inside = _over_channels(builder, op("Max", op("Min", indices, last), ints(0)), channels)
    mask = _mask(builder, op("Less", indices, _column(builder, signal.lengths)))
    return op("Mul", op("GatherElements", signal.tensor, inside, axis=2), mask)


def _time(builder: GraphBuilder, tensor: str) -> str:
    """Return the size of the last axis: [1]."""
    return builder.op("Gather", builder.op("Shape", tensor), builder.ints(2), axis=0)


def _column(builder: GraphBuilder, lengths: str) -> str:
    """Reshape [B] -> [B, 1]."""
    return builder.op("Unsqueeze", lengths, builder.ints(1))


def _over_channels(builder: GraphBuilder, indices: str, channels: int) -> str:
    """Expand [B, columns] -> [B, channels, columns]."""
    return builder.op("Expand", builder.op("Unsqueeze", indices, builder.ints(1)), builder.ints(1, channels, 1))


def _mask(builder: GraphBuilder, condition: str) -> str:
    """Cast booleans [B, columns] -> ones and zeros [B, 1, columns]."""
    return builder.cast(builder.op("Unsqueeze", condition, builder.ints(1)))


def _skip_lstm(builder: GraphBuilder, layer: SkipLSTM, signal: Signal, name: str) -> Signal:
    op, lstm = builder.op, layer.lstm
    steps = op("Transpose", signal.tensor, perm=[2, 0, 1])  # [T, B, C]
    # Only the backward direction reads an item's padding before the item itself, so only it needs the lengths.
    lengths = [builder.to_int32(signal.lengths)] if lstm.bidirectional else []
    output = steps
    for index in range(lstm.num_layers):
        weights = lstm_weights(builder, layer, index, name)
        direction = "bidirectional" if lstm.bidirectional else "forward"
        inputs = [output, *weights, *lengths]
        output = op("LSTM", *inputs, hidden_size=lstm.hidden_size, direction=direction)  # [T, directions, B, C]
        if lstm.bidirectional:
            output = op("Reshape", op("Transpose", output, perm=[0, 2, 1, 3]), builder.ints(0, 0, -1))
        else:
            output = op("Squeeze", output, builder.ints(1))
    skip = op("Concat", steps, steps, axis=2) if lstm.bidirectional else steps
    return Signal(op("Transpose", op("Add", output, skip), perm=[1, 2, 0]), signal.lengths)


def lstm_weights(
    builder: GraphBuilder, layer: SkipLSTM, index: int, name: str, direction: int | None = None
) -> list[str]:
    """Add the weights of one LSTM layer, and return the names of the ONNX LSTM's inputs W, R and B.

    `direction` selects one: 0 is forward, 1 is backward; by default all that the layer has.
    """
    lstm = layer.lstm
    directions = ["", "_reverse"] if lstm.bidirectional else [""]
    selected = directions if direction is None else [directions[direction]]
    values = {
        part: np.stack([_gates(getattr(lstm, f"{part}_l{index}{suffix}")) for suffix in selected])
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    parts = len(directions) // len(selected)
    bias = np.concatenate([values["bias_ih"], values["bias_hh"]], axis=1)
    return [
        builder.weight(f"{name}.weight_ih_{index}", values["weight_ih"], parts=parts),
        builder.weight(f"{name}.weight_hh_{index}", values["weight_hh"], parts=parts),
        builder.weight(f"{name}.bias_{index}", bias, parts=parts),
    ]


def _gates(parameter: Tensor) -> NDArray[np.float32]:
    """Reorder the gates: torch stacks input, forget, cell, output; ONNX input, output, forget, cell."""
    i, f, c, o = np.split(array(parameter), 4)
    return np.concatenate([i, o, f, c])
