"""The layers of `dmcodec.nn` as ONNX nodes, for batches in which every item has its own length, or all have the same.

The graphs are built node by node, not traced. Tracing stores the padding, which is Python arithmetic, as constants for
one length, and it breaks the LSTM for other lengths. Here each item's length is an input of the graph: its reflect
padding is placed at the item's end, and the backward LSTM starts there, so that other items of the batch can't change
its result. Weight norm is folded into the weights. A transposed convolution is a convolution of two taps and a reshape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from dmcodec.errors import ExportError
from dmcodec.nn.layers import Conv1d, ConvTranspose1d, ResidualBlock, SkipLSTM

from .graph_builder import TO_THE_END, GraphBuilder
from .padding import Signal, reflect_pad, with_zero_after_end
from .weights import TAPS, two_taps


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
        case nn.Identity():
            return signal
        case nn.ELU():
            return Signal(builder.op("Elu", signal.tensor), signal.lengths)
        case Conv1d():
            return _conv(builder, layer, signal, name)
        case ConvTranspose1d():
            return _conv_transpose(builder, layer, signal, name)
        case ResidualBlock():
            shortcut = _add_layer(builder, layer.shortcut, signal, f"{name}.shortcut")
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
    padded = reflect_pad(builder, signal, layer.padding, layer.weights.weight().shape[1])
    return signal.scaled(builder, convolution(builder, layer, padded, name), down=layer.padding.stride)


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


def _conv_transpose(builder: GraphBuilder, layer: ConvTranspose1d, signal: Signal, name: str) -> Signal:
    """Add a transposed convolution of stride s and kernel 2 s, trimmed, as a convolution and a reshape.

    Output s t + p of it is x[t] w[p] + x[t - 1] w[p + s]: of two taps, with the phases p as channels. It is faster than
    ConvTranspose, which besides runs on the CPU in ONNX Runtime's CUDA provider where its padding is asymmetric. Where
    all is trimmed at the right end, no output depends on the step after the last.
    """
    op, ints, weight, stride = builder.op, builder.ints, array(layer.weights.weight()), layer.stride
    if weight.shape[2] != 2 * stride:
        raise ExportError(f"{name}: a transposed convolution of stride {stride} has kernel {weight.shape[2]}, not 2x")
    channels, sees_end = weight.shape[1], layer.trim.left > 0
    phases = op(
        "Conv",
        with_zero_after_end(builder, signal, weight.shape[0]) if sees_end else signal.tensor,
        builder.weight(f"{name}.{TAPS}", two_taps(weight, stride)),
        builder.weight(f"{name}.bias", np.repeat(array(layer.weights.bias), stride), exact=True),
        kernel_shape=[2],
        pads=[1, int(sees_end)],
    )  # [B, C * stride, T + 1], or T
    split = op("Transpose", op("Reshape", phases, ints(0, channels, stride, -1)), perm=[0, 1, 3, 2])
    whole = op("Reshape", split, ints(0, channels, -1))
    if not sees_end:
        return signal.scaled(builder, whole, up=stride)
    end = -layer.trim.right if layer.trim.right else TO_THE_END
    trimmed = op("Slice", whole, ints(layer.trim.left), ints(end), ints(2))
    return signal.scaled(builder, trimmed, up=stride)


def _skip_lstm(builder: GraphBuilder, layer: SkipLSTM, signal: Signal, name: str) -> Signal:
    op, lstm = builder.op, layer.lstm
    steps = op("Transpose", signal.tensor, perm=[2, 0, 1])  # [T, B, C]
    steps = builder.converted(steps, builder.arithmetic, builder.recurrent)
    # Only the backward direction reads an item's padding before the item itself, so only it needs the lengths.
    lengths = [builder.to_int32(signal.lengths)] if lstm.bidirectional and signal.lengths is not None else []
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
    summed = op("Transpose", op("Add", output, skip), perm=[1, 2, 0])
    return Signal(builder.converted(summed, builder.recurrent, builder.arithmetic), signal.lengths)


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
        builder.recurrent_weight(f"{name}.weight_ih_{index}", values["weight_ih"], parts),
        builder.recurrent_weight(f"{name}.weight_hh_{index}", values["weight_hh"], parts),
        builder.recurrent_weight(f"{name}.bias_{index}", bias, parts),
    ]


def _gates(parameter: Tensor) -> NDArray[np.float32]:
    """Reorder the gates: torch stacks input, forget, cell, output; ONNX input, output, forget, cell."""
    i, f, c, o = np.split(array(parameter), 4)
    return np.concatenate([i, o, f, c])
