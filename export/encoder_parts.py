"""The encoder in parts, cut at its LSTM, whose state is an input and an output of each part.

A clip of any length runs through the parts in blocks with the same arithmetic as in one piece: the convolutions in
tiles, each LSTM layer forward from the clip's start and backward from its end, then the last convolution. A live stream
runs the same parts. Layouts are time-major, [frames, batch, channels], as the LSTM reads them.
"""

from __future__ import annotations

from torch import nn

from dmcodec.bundle import DOWNSAMPLER, DOWNSAMPLER_STEPS, OUTPUT, TensorSpec, directions, lstm_name
from dmcodec.errors import ExportError
from dmcodec.nn import DMCodec
from dmcodec.nn.layers import Conv1d, SkipLSTM
from dmcodec.plain_form import plain_name
from dmcodec.precision import FP32
from dmcodec.receptive_field import encoder_reach

from .graph_builder import Graph, GraphBuilder
from .layers import add_layers, lstm_weights
from .padding import Signal
from .stepped import SteppedLayers, SteppedSignal, convolution, elu

_LAYERS_AFTER_LSTM = 2  # ELU and a convolution


def encoder_parts(codec: DMCodec, precision: str) -> dict[str, Graph]:
    """Build the graphs of `dmcodec.bundle.encoder_part_names`, and of the first its plain form and that in steps.

    Args:
        codec: the model.
        precision: a name of `dmcodec.precision.PRECISIONS`.

    Raises:
        ExportError: the encoder's layers have another order.
    """
    layers = list(codec.encoder.model)
    lstm, last = layers[-_LAYERS_AFTER_LSTM - 1], layers[-1]
    if not isinstance(lstm, SkipLSTM) or not isinstance(layers[-2], nn.ELU) or not isinstance(last, Conv1d):
        raise ExportError("encoder: expected an LSTM, an ELU and a convolution as its last layers")
    parts = {
        DOWNSAMPLER: _downsampler(codec, precision),
        plain_name(DOWNSAMPLER): _downsampler(codec, precision, plain=True),
        DOWNSAMPLER_STEPS: _downsampler_steps(codec, precision),
    }
    for index in range(lstm.lstm.num_layers):
        for way in directions(codec.config):
            parts[lstm_name(index, way)] = _lstm(codec, lstm, index, way, precision)
    parts[OUTPUT] = _output(codec, last, precision)
    return parts


def _steps(name: str, channels: int, frames: str = "frames") -> TensorSpec:
    return TensorSpec(name, "float32", (frames, "batch", channels))


def _channels(codec: DMCodec) -> int:
    return codec.config.lstm_channels


def _downsampler(codec: DMCodec, precision: str, plain: bool = False) -> Graph:
    """Build the layers before the LSTM: waveform, and but for the plain form the items' lengths -> features."""
    layers = nn.Sequential(*list(codec.encoder.model)[: -_LAYERS_AFTER_LSTM - 1])
    builder = GraphBuilder(plain_name(DOWNSAMPLER) if plain else DOWNSAMPLER, precision)
    waveform = TensorSpec("waveform", "float32", ("batch", 1, "samples"))
    lengths = TensorSpec("lengths", "int64", ("batch",))
    signal = Signal(builder.cast_in(waveform.name), None if plain else lengths.name)
    signal = add_layers(builder, layers, signal, "encoder")
    features = _steps("features", _channels(codec))
    builder.alias(builder.cast_out(builder.op("Transpose", signal.tensor, perm=[2, 0, 1])), features.name)
    return builder.finish([waveform] if plain else [waveform, lengths], [features])


def _downsampler_steps(codec: DMCodec, precision: str) -> Graph:
    """Build the layers before the LSTM with a state: waveform of whole frames, state -> features, new state.

    The waveform is so many samples later than the features as these reach to the right (`EncoderReach.future_samples`).
    """
    layers = nn.Sequential(*list(codec.encoder.model)[: -_LAYERS_AFTER_LSTM - 1])
    builder = GraphBuilder(DOWNSAMPLER_STEPS, precision)
    waveform = TensorSpec("waveform", "float32", ("batch", 1, "samples"))
    steps = SteppedLayers(builder, builder.cast_in("state"))
    columns = builder.op("Transpose", builder.cast_in(waveform.name), perm=[0, 2, 1])
    signal = SteppedSignal(columns, 1, -encoder_reach(codec.config).future_samples, codec.config.hop_length)
    signal = steps.delayed(steps.add(layers, signal, "encoder"), 0)
    features = _steps("features", _channels(codec))
    builder.alias(builder.cast_out(builder.op("Transpose", signal.tensor, perm=[1, 0, 2])), features.name)
    state, new_state = (TensorSpec(name, "float32", ("batch", steps.size)) for name in ("state", "new_state"))
    builder.alias(builder.cast_out(steps.new_state()), new_state.name)
    return builder.finish([waveform, state], [features, new_state])


def _lstm(codec: DMCodec, lstm: SkipLSTM, index: int, way: str, precision: str) -> Graph:
    """Build one direction of one LSTM layer: its input and state -> its output and new state.

    The input of layer 0 is `features`; of the others it is the output of each direction of the layer before.
    """
    channels = _channels(codec)
    builder = GraphBuilder(lstm_name(index, way), precision, recurrent=True)
    op = builder.op
    names = directions(codec.config) if index else ("features",)
    inputs = [_steps(name, channels) for name in names]
    states = [TensorSpec(name, "float32", (1, "batch", channels)) for name in ("hidden", "cell")]
    steps = [builder.cast_in(spec.name) for spec in inputs]
    joined = op("Concat", *steps, axis=2) if len(steps) > 1 else steps[0]
    direction = directions(codec.config).index(way)
    name = f"encoder.{len(codec.encoder.model) - _LAYERS_AFTER_LSTM - 1}"
    weights = lstm_weights(builder, lstm, index, name, direction)
    state = [builder.cast_in(spec.name) for spec in states]
    output, hidden, cell = builder.ops(
        "LSTM",
        3,
        joined,
        *weights,
        "",
        *state,
        hidden_size=channels,
        direction="reverse" if direction else "forward",
    )
    result = _steps("output", channels)
    new_states = [TensorSpec(f"new_{spec.name}", "float32", spec.axes) for spec in states]
    builder.alias(builder.cast_out(op("Squeeze", output, builder.ints(1))), result.name)
    for spec, tensor in zip(new_states, (hidden, cell), strict=True):
        builder.alias(builder.cast_out(op("Identity", tensor)), spec.name)
    return builder.finish([*inputs, *states], [result, *new_states])


def _output(codec: DMCodec, last: Conv1d, precision: str) -> Graph:
    """Build the skip connection and the layers after the LSTM.

    Features and the output of each direction of the last LSTM layer, with the convolution's context on each side
    -> latents [batch, dimension, frames].
    """
    builder = GraphBuilder(OUTPUT, precision)
    op, ways = builder.op, directions(codec.config)
    inputs = [_steps(name, _channels(codec), "padded_frames") for name in ("features", *ways)]
    recurrent = builder.recurrent
    features, *outputs = [builder.converted(spec.name, FP32, recurrent) for spec in inputs]
    skip = [features] * len(ways)
    lstm, skip_joined = (op("Concat", *parts, axis=2) if len(ways) > 1 else parts[0] for parts in (outputs, skip))
    summed = op("Transpose", op("Add", lstm, skip_joined), perm=[1, 0, 2])
    summed = builder.converted(summed, recurrent, builder.arithmetic)
    name = f"encoder.{len(codec.encoder.model) - 1}"
    latents = TensorSpec("latents", "float32", ("batch", codec.config.dimension, "frames"))
    convolved = op("Transpose", convolution(builder, last, elu(builder, summed), name), perm=[0, 2, 1])
    builder.alias(builder.cast_out(convolved), latents.name)
    return builder.finish(inputs, [latents])
