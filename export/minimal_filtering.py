"""Convolutions of two and three taps with fewer products, two columns of their output at a time.

F(2, 2) takes three products for two columns in place of four, and F(2, 3) takes four in place of six (Winograd,
"Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
2015, section 4.1). The products are of sums of the inputs and of the weights; the rounding of float32 stays near what
it is without them. Signals are [batch, time, channels], and weights [taps, inputs, outputs].
"""

from __future__ import annotations

import numpy as np

from .graph_builder import TO_THE_END, GraphBuilder


def two_taps(builder: GraphBuilder, tensor: str, weight: str, bias: str, sizes: tuple[int, int]) -> str:
    """Return the convolution of [B, T + 1, inputs] as [B, T, outputs], for `sizes` inputs and outputs, and T even."""
    op, (first, second) = builder.op, _taps(builder, weight, 2)
    before, here, after = (_every_second(builder, tensor, start, 2) for start in range(3))
    both = _product(builder, here, op("Add", first, second), bias, sizes[0])
    even = _product(builder, op("Sub", before, here), first, both, sizes[0])
    odd = _product(builder, op("Sub", after, here), second, both, sizes[0])
    return _in_turn(builder, even, odd, tensor, sizes[1])


def three_taps(builder: GraphBuilder, tensor: str, weight: str, bias: str, sizes: tuple[int, int]) -> str:
    """Return the convolution of [B, T + 2, inputs] as [B, T, outputs], for `sizes` inputs and outputs, and T even."""
    op, (first, middle, last) = builder.op, _taps(builder, weight, 3)
    columns = [_every_second(builder, tensor, start, 3) for start in range(4)]
    half, outer = builder.constant(np.array(0.5, builder.arithmetic.dtype)), op("Add", first, last)
    sums = op("Mul", op("Add", outer, middle), half)
    differences = op("Mul", op("Sub", outer, middle), half)
    both = _product(builder, op("Add", columns[1], columns[2]), sums, bias, sizes[0])
    change = _product(builder, op("Sub", columns[2], columns[1]), differences, "", sizes[0])
    even = _product(builder, op("Sub", columns[0], columns[2]), first, op("Add", both, change), sizes[0])
    odd = _product(builder, op("Sub", columns[3], columns[1]), last, op("Sub", both, change), sizes[0])
    return _in_turn(builder, even, odd, tensor, sizes[1])


def _taps(builder: GraphBuilder, weight: str, count: int) -> list[str]:
    return [builder.op("Gather", weight, builder.constant(np.array(tap, np.int64)), axis=0) for tap in range(count)]


def _every_second(builder: GraphBuilder, tensor: str, start: int, taps: int) -> str:
    """Return columns start, start + 2, ...: as many as there are pairs of outputs."""
    ints = builder.ints
    end = start - taps
    return builder.op("Slice", tensor, ints(start), ints(end if end < 0 else TO_THE_END), ints(1), ints(2))


def _product(builder: GraphBuilder, tensor: str, weight: str, added: str, inputs: int) -> str:
    """Return [B, T, inputs] @ weight + added, as [B * T, outputs]."""
    return builder.op("Gemm", builder.op("Reshape", tensor, builder.ints(-1, inputs)), weight, added)


def _in_turn(builder: GraphBuilder, even: str, odd: str, tensor: str, outputs: int) -> str:
    """Return the even and the odd columns in turn: twice [B * T / 2, outputs] -> [B, T, outputs]; `tensor` has B."""
    op, ints = builder.op, builder.ints
    pairs = op("Concat", *(op("Reshape", each, ints(-1, 1, outputs)) for each in (even, odd)), axis=1)
    batch = op("Slice", op("Shape", tensor), ints(0), ints(1))
    return op("Reshape", pairs, op("Concat", batch, ints(-1, outputs), axis=0))
