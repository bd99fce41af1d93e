"""Padding of convolutions as ONNX nodes, in two forms.

In a batch of items of different lengths, each item's reflection stands at its own end: only the columns of the padding
are computed, and a scatter writes those of the right side. Where all items fill the tensor, the plain form, it is one
`Pad` of the whole tensor.
"""

from __future__ import annotations

import dataclasses

from dmcodec.convolutions import ConvPadding

from .graph_builder import GraphBuilder


@dataclasses.dataclass(frozen=True)
class Signal:
    """Names of a tensor [B, C, T] and of the lengths [B] (int64) of its items. Values beyond a length are undefined.

    Without lengths all items are T long, and T is at least as many as `dmcodec.plain_form` says.
    """

    tensor: str
    lengths: str | None

    def scaled(self, builder: GraphBuilder, tensor: str, up: int = 1, down: int = 1) -> Signal:
        """Return `tensor`, whose items are ceil(length * up / down) long."""
        lengths = self.lengths
        if lengths is not None and up > 1:
            lengths = builder.op("Mul", lengths, builder.ints(up))
        if lengths is not None and down > 1:
            lengths = builder.op("Div", builder.op("Add", lengths, builder.ints(down - 1)), builder.ints(down))
        return Signal(tensor, lengths)


def with_zero_after_end(builder: GraphBuilder, signal: Signal, channels: int) -> str:
    """Set the step after each item's end to zero.

    An item's last outputs depend on one step beyond its end. For a clip alone there is nothing, which counts as zero.
    """
    if signal.lengths is None:
        return signal.tensor
    op, ints = builder.op, builder.ints
    end = _column(builder, signal.lengths)  # [B, 1]
    inside = op("Min", end, op("Sub", _time(builder, signal.tensor), ints(1)))
    index = _over_channels(builder, inside, channels)
    kept = op("Mul", op("GatherElements", signal.tensor, index, axis=2), _mask(builder, op("Less", inside, end)))
    return op("ScatterElements", signal.tensor, index, kept, axis=2)


def reflect_pad(builder: GraphBuilder, signal: Signal, padding: ConvPadding, channels: int) -> str:
    """Add the reflect padding of `dmcodec.nn.layers.reflect_pad` at each item's ends.

    With lengths it holds for any length from 1 up.
    """
    columns = padding.most_right
    if padding.left == 0 and columns == 0:
        return signal.tensor
    if signal.lengths is None:
        return _plain_pad(builder, signal.tensor, padding)
    op, ints = builder.op, builder.ints
    tensor, length = signal.tensor, _column(builder, signal.lengths)  # [B, 1]
    pieces = [tensor]
    if padding.left:
        mirrored = op("Min", ints(*range(padding.left, 0, -1)), op("Add", length, ints(padding.left)))  # [B, left]
        pieces.insert(0, _gather_or_zero(builder, tensor, length, mirrored, channels))
    if columns == 0:
        return op("Concat", *pieces, axis=2)
    right = _right_padding(builder, length, padding)
    # A signal that is too short to be reflected is extended with zeros to `extended` samples.
    extended = op("Max", length, op("Add", op("Max", ints(padding.left), right), ints(1)))
    positions = op("Add", length, ints(*range(columns)))  # [B, columns]
    around = op("Sub", op("Mul", op("Sub", extended, ints(1)), ints(2)), positions)
    sources = op("Where", op("Less", positions, extended), positions, around)
    values = _gather_or_zero(builder, tensor, length, sources, channels)
    room = op("Concat", *pieces, values, axis=2)
    targets = _over_channels(builder, op("Add", positions, ints(padding.left)), channels)
    return op("ScatterElements", room, targets, values, axis=2)


def _plain_pad(builder: GraphBuilder, tensor: str, padding: ConvPadding) -> str:
    op, ints = builder.op, builder.ints
    before = (0, 0, padding.left, 0, 0)
    if padding.stride == 1:
        return op("Pad", tensor, ints(*before, padding.right), mode="reflect")
    right = _right_padding(builder, _time(builder, tensor), padding)
    return op("Pad", tensor, op("Concat", ints(*before), right, axis=0), mode="reflect")


def _right_padding(builder: GraphBuilder, length: str, padding: ConvPadding) -> str:
    """Return the padding on the right with what completes the last window: -length mod stride more."""
    op, ints = builder.op, builder.ints
    right = ints(padding.right)
    if padding.stride == 1:
        return right
    stride = ints(padding.stride)
    return op("Add", right, op("Mod", op("Sub", stride, op("Mod", length, stride)), stride))


def _gather_or_zero(builder: GraphBuilder, tensor: str, length: str, indices: str, channels: int) -> str:
    """Return tensor[b, :, indices[b]] as [B, C, columns], with zeros for indices at or beyond the length [B, 1]."""
    op, ints = builder.op, builder.ints
    last = op("Sub", _time(builder, tensor), ints(1))
    inside = _over_channels(builder, op("Max", op("Min", indices, last), ints(0)), channels)
    return op("Mul", op("GatherElements", tensor, inside, axis=2), _mask(builder, op("Less", indices, length)))


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
