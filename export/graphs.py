"""The graphs of a bundle, each from its part of the torch model.

The decoder has three more graphs for streams: `decoder_recurrent` ends after the LSTM, whose state is an input and an
output, `decoder_upsampler` holds the layers after it, and `decoder_upsampler_steps` holds them with a state.
`dmcodec.export.encoder_parts` has those of the encoder.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dmcodec.bundle import UPSAMPLER_STEPS, TensorSpec
from dmcodec.errors import ExportError
from dmcodec.nn import DMCodec
from dmcodec.nn.layers import Conv1d, SkipLSTM
from dmcodec.plain_form import least_plain_frames, plain_name
from dmcodec.precision import FP32, PRECISIONS
from dmcodec.receptive_field import decoder_reach

from .encoder_parts import encoder_parts
from .graph_builder import Graph, GraphBuilder
from .layers import add_layers, array, lstm_weights
from .padding import Signal
from .stepped import SteppedLayers, SteppedSignal, convolution
from .weights import add_codebook, add_codebooks, codebook_centre, codebook_name, stored_codebooks

_FIRST_UPSAMPLER_LAYER = 2  # layer 0 is a convolution, layer 1 the LSTM


def build_graphs(codec: DMCodec, precision: str = "fp32") -> dict[str, Graph]:
    """Build all graphs of a bundle.

    Args:
        codec: the model.
        precision: a name of `dmcodec.precision.PRECISIONS`. Quantizer and dequantizer always compute in float32, since
            half precision changes codes. Inputs and outputs are float32 or int64 in every precision.

    Returns:
        The graphs by the names of `dmcodec.bundle.GRAPH_NAMES` and `encoder_part_names`, and their plain forms.
    """
    latents = TensorSpec("latents", "float32", ("batch", codec.config.dimension, "frames"))
    waveform = TensorSpec("waveform", "float32", ("batch", 1, "samples"))
    rvq = PRECISIONS[precision].rvq
    encoder = (codec.encoder.model, waveform, latents, precision)
    decoder = (codec.decoder.model, latents, waveform, precision)
    return {
        "encoder": _network("encoder", *encoder),
        plain_name("encoder"): _network("encoder", *encoder, plain=True),
        "quantizer": _quantizer(codec, latents, rvq),
        "dequantizer": _dequantizer(codec, latents, rvq),
        "decoder": _network("decoder", *decoder),
        plain_name("decoder"): _network("decoder", *decoder, plain=True),
        "decoder_recurrent": _recurrent(codec, precision),
        "decoder_upsampler": _upsampler(codec, precision),
        UPSAMPLER_STEPS: _upsampler_steps(codec, precision),
        **encoder_parts(codec, precision),
    }


def _network(
    name: str, layers: nn.Sequential, source: TensorSpec, target: TensorSpec, precision: str, plain: bool = False
) -> Graph:
    """Build encoder or decoder: `source`, and the lengths of its items unless it is the plain form -> `target`."""
    builder = GraphBuilder(plain_name(name) if plain else name, precision)
    lengths = TensorSpec("lengths", "int64", ("batch",))
    signal = Signal(builder.cast_in(source.name), None if plain else lengths.name)
    signal = add_layers(builder, layers, signal, name)
    builder.alias(builder.cast_out(signal.tensor), target.name)
    return builder.finish([source] if plain else [source, lengths], [target])


def _quantizer(codec: DMCodec, latents: TensorSpec, precision: str) -> Graph:
    """Build the greedy residual quantization at all levels. Codes of fewer levels are the first rows of the output.

    The arithmetic is that of `dmcodec.nn.rvq.Codebook.quantize`, on vectors from which the mean of a level's entries
    is taken. The entries are stored as they are, for the dequantizer, too; a session folds their Sub when it loads.
    """
    builder = GraphBuilder("quantizer", precision)
    op, config = builder.op, codec.config
    frames = op("Transpose", latents.name, perm=[0, 2, 1])  # [B, T, D]
    residual = op("Reshape", frames, builder.ints(-1, config.dimension))  # [B*T, D]
    # [1, B, T], from the shape and not with -1, which is ambiguous where batch or time is 0
    shape = op("Slice", op("Shape", frames), builder.ints(0), builder.ints(2))
    code_shape = op("Concat", builder.ints(1), shape, axis=0)
    levels = []
    for level, codebook in enumerate(_codebooks(codec, precision)):
        entries, mean = add_codebook(builder, level, codebook), codebook_centre(codebook)
        centre = builder.weight(f"{codebook_name(level)}.centre", mean, exact=True)
        norms = builder.weight(f"{codebook_name(level)}.squared_norms", _squared_norms(codebook - mean), exact=True)
        vectors = op("Sub", residual, centre)
        # |x - m|^2 is the same for all entries. The lowest index wins a tie.
        scores = op("Gemm", vectors, op("Sub", entries, centre), norms, alpha=-2.0, transB=1)
        indices = op("ArgMin", scores, axis=1, keepdims=0, select_last_index=0)
        levels.append(op("Reshape", indices, code_shape))
        if level < config.n_q - 1:
            # From the stored entries: the centred ones exist in the packed form of Gemm only.
            residual = op("Sub", vectors, op("Sub", op("Gather", entries, indices, axis=0), centre))
    codes = TensorSpec("codes", "int64", (config.n_q, "batch", "frames"))
    builder.alias(op("Concat", *levels, axis=0), codes.name)
    return builder.finish([latents], [codes])


def _dequantizer(codec: DMCodec, latents: TensorSpec, precision: str) -> Graph:
    """Build the sum of the codebook entries of codes from level `first_level` on. Codes must be in range."""
    builder = GraphBuilder("dequantizer", precision)
    op, config = builder.op, codec.config
    codes = TensorSpec("codes", "int64", ("n_q", "batch", "frames"))
    first_level = TensorSpec("first_level", "int64", ())
    table = add_codebooks(builder, _codebooks(codec, precision))
    zero, one = (builder.constant(np.array(value, np.int64)) for value in (0, 1))
    levels = op("Range", zero, op("Gather", op("Shape", codes.name), zero, axis=0), one)
    offsets = op("Mul", op("Add", levels, first_level.name), builder.ints(config.codebook_size))
    rows = op("Add", codes.name, op("Reshape", offsets, builder.ints(-1, 1, 1)))
    entries = op("Gather", table, rows, axis=0)  # [n_q, B, T, D]
    total = op("ReduceSum", entries, builder.ints(0), keepdims=0)
    builder.alias(op("Transpose", total, perm=[0, 2, 1]), latents.name)
    return builder.finish([codes, first_level], [latents])


def _codebooks(codec: DMCodec, precision: str) -> NDArray[np.float32]:
    """Return the codebooks [n_q, codebook_size, D] as the bundle stores them."""
    return stored_codebooks(array(codec.quantizer.codebooks()), precision)


def _squared_norms(codebook: NDArray[Any]) -> NDArray[np.float64]:
    squared: NDArray[np.float64] = np.square(codebook.astype(np.float64)).sum(axis=1)
    return squared


def _recurrent(codec: DMCodec, precision: str) -> Graph:
    """Build the decoder's first convolution and LSTM for streams.

    Latents with the convolution's context on each side, and the LSTM's state -> LSTM features, and the new state.
    """
    first, lstm = list(codec.decoder.model)[:_FIRST_UPSAMPLER_LAYER]
    if not isinstance(first, Conv1d) or not isinstance(lstm, SkipLSTM):
        raise ExportError("decoder: expected a convolution and an LSTM as its first layers")
    layers, channels = lstm.lstm.num_layers, lstm.lstm.hidden_size
    latents = TensorSpec("latents", "float32", ("batch", codec.config.dimension, "padded_frames"))
    states = tuple(TensorSpec(name, "float32", (layers, "batch", channels)) for name in ("hidden", "cell"))
    new_states = tuple(TensorSpec(f"new_{spec.name}", "float32", spec.axes) for spec in states)
    features = TensorSpec("features", "float32", ("batch", channels, "frames"))

    builder = GraphBuilder("decoder_recurrent", precision)
    op, ints, recurrent = builder.op, builder.ints, builder.recurrent
    columns = op("Transpose", builder.cast_in(latents.name), perm=[0, 2, 1])
    convolved = convolution(builder, first, columns, "decoder.0")  # as a product, which reads the weights once a batch
    hidden, cell = (builder.converted(spec.name, FP32, recurrent) for spec in states)
    steps = op("Transpose", convolved, perm=[1, 0, 2])  # [T, B, C]
    steps = builder.converted(steps, builder.arithmetic, recurrent)
    output, last_hidden, last_cell = steps, [], []
    for index in range(layers):
        weights = lstm_weights(builder, lstm, index, "decoder.1")
        state = [op("Slice", tensor, ints(index), ints(index + 1), ints(0)) for tensor in (hidden, cell)]
        outputs = builder.ops("LSTM", 3, output, *weights, "", *state, hidden_size=channels)
        output = op("Squeeze", outputs[0], ints(1))
        last_hidden.append(outputs[1])
        last_cell.append(outputs[2])
    summed = op("Transpose", op("Add", output, steps), perm=[1, 2, 0])
    builder.alias(builder.converted(summed, recurrent, FP32), features.name)
    for spec, parts in zip(new_states, (last_hidden, last_cell), strict=True):
        builder.alias(builder.converted(op("Concat", *parts, axis=0), recurrent, FP32), spec.name)
    return builder.finish([latents, *states], [features, *new_states])


def _upsampler(codec: DMCodec, precision: str) -> Graph:
    """Build the decoder's layers after the LSTM: features -> waveform, all items of one length."""
    layers = nn.Sequential(*list(codec.decoder.model)[_FIRST_UPSAMPLER_LAYER:])
    channels = codec.config.lstm_channels
    features = TensorSpec("features", "float32", ("batch", channels, "frames"))
    waveform = TensorSpec("waveform", "float32", ("batch", 1, "samples"))
    builder = GraphBuilder("decoder_upsampler", precision)
    op, ints = builder.op, builder.ints
    lengths = None
    if least_plain_frames(codec.config, "decoder_upsampler") > 1:
        shape = op("Shape", features.name)
        batch, frames = (op("Gather", shape, ints(axis), axis=0) for axis in (0, 2))
        lengths = op("Expand", frames, batch)
    signal = Signal(builder.cast_in(features.name), lengths)
    signal = add_layers(builder, layers, signal, "decoder", start=_FIRST_UPSAMPLER_LAYER)
    builder.alias(builder.cast_out(signal.tensor), waveform.name)
    return builder.finish([features], [waveform])


def _upsampler_steps(codec: DMCodec, precision: str) -> Graph:
    """Build the decoder's layers after the LSTM with a state: features, state -> waveform, new state.

    The waveform is as long as the features, and so many frames later as those that audio must wait for.
    """
    config = codec.config
    channels = config.lstm_channels
    features = TensorSpec("features", "float32", ("batch", channels, "frames"))
    builder = GraphBuilder(UPSAMPLER_STEPS, precision)
    steps = SteppedLayers(builder, builder.cast_in("state"))
    columns = builder.op("Transpose", builder.cast_in(features.name), perm=[0, 2, 1])
    layers = nn.Sequential(*list(codec.decoder.model)[_FIRST_UPSAMPLER_LAYER:])
    signal = steps.add(layers, SteppedSignal(columns, channels), "decoder", start=_FIRST_UPSAMPLER_LAYER)
    signal = steps.delayed(signal, decoder_reach(config).future * config.hop_length)
    waveform = TensorSpec("waveform", "float32", ("batch", 1, "samples"))
    builder.alias(builder.cast_out(builder.op("Transpose", signal.tensor, perm=[0, 2, 1])), waveform.name)
    state, new_state = (TensorSpec(name, "float32", ("batch", steps.size)) for name in ("state", "new_state"))
    builder.alias(builder.cast_out(steps.new_state()), new_state.name)
    return builder.finish([features, state], [waveform, new_state])
