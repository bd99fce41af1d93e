"""The decoder cut behind its LSTM, for decoding while tokens still come in: the LSTM's state goes in and out.

`decoder_recurrent` is the first convolution, without its padding (the caller pads at the ends of the clip), and the
LSTM. `decoder_upsampler` is the rest; it is run on windows whose edges are thrown away (`dmcodec.receptive_field`).
"""

from __future__ import annotations

from torch import nn

from dmcodec.bundle import TensorSpec
from dmcodec.errors import ExportError
from dmcodec.export.graph_builder import Graph, GraphBuilder
from dmcodec.export.layers import Signal, add_layers, convolution, lstm_weights
from dmcodec.nn import DMCodec
from dmcodec.nn.layers import Conv1d, SkipLSTM

_CUT = 2  # layers 0 (convolution) and 1 (LSTM) come before the cut


def recurrent_graph(codec: DMCodec, precision: str) -> Graph:
    """Latents with 3 frames of context on each side, and the state -> LSTM features, and the new state."""
    first, lstm = list(codec.decoder.model)[:_CUT]
    if not isinstance(first, Conv1d) or not isinstance(lstm, SkipLSTM):
        raise ExportError("decoder: expected a convolution and an LSTM as its first layers")
    layers, channels = lstm.lstm.num_layers, lstm.lstm.hidden_size
    latents = TensorSpec("latents", "float32", ("batch", codec.config.dimension, "padded_frames"))
    states = tuple(TensorSpec(name, "float32", (layers, "batch", channels)) for name in ("hidden", "cell"))
    new_states = tuple(TensorSpec(f"new_{spec.name}", "float32", spec.axes) for spec in states)
    features = TensorSpec("features", "float32", ("batch", channels, "frames"))

    builder = GraphBuilder("decoder_recurrent", precision)
    op, ints = builder.op, builder.ints
    convolved = convolution(builder, first, builder.cast_in(latents.name), "decoder.0")
    hidden, cell = (builder.cast_in(spec.name) for spec in states)
    steps = op("Transpose", convolved, perm=[2, 0, 1])  # [T, B, C]
    output, last_hidden, last_cell = steps, [], []
    for index in range(layers):
        weights = lstm_weights(builder, lstm, index, "decoder.1")
        state = [op("Slice", tensor, ints(index), ints(index + 1), ints(0)) for tensor in (hidden, cell)]
        outputs = builder.ops("LSTM", 3, output, *weights, "", *state, hidden_size=channels)
        output = op("Squeeze", outputs[0], ints(1))
        last_hidden.append(outputs[1])
        last_cell.append(outputs[2])
    summed = op("Transpose", op("Add", output, steps), perm=[1, 2, 0])
    builder.alias(builder.cast_out(summed), features.name)
    for spec, parts in zip(new_states, (last_hidden, last_cell), strict=True):
        builder.alias(builder.cast_out(op("Concat", *parts, axis=0)), spec.name)
    return builder.finish([latents, *states], [features, *new_states])


def upsampler_graph(codec: DMCodec, precision: str) -> Graph:
    """LSTM features -> waveform, all items of one length."""
    layers = nn.Sequential(*list(codec.decoder.model)[_CUT:])
    channels = codec.config.n_filters * 2 ** len(codec.config.strides)
    features = TensorSpec("features", "float32", ("batch", channels, "frames"))
    waveform = TensorSpec("waveform", "float32", ("batch", 1, "samples"))
    builder = GraphBuilder("decoder_upsampler", precision)
    op, ints = builder.op, builder.ints
    shape = op("Shape", features.name)
    batch, frames = (op("Gather", shape, ints(axis), axis=0) for axis in (0, 2))
    signal = Signal(builder.cast_in(features.name), op("Expand", frames, batch))
    signal = add_layers(builder, layers, signal, "decoder", start=_CUT)
    builder.alias(builder.cast_out(signal.tensor), waveform.name)
    return builder.finish([features], [waveform])
