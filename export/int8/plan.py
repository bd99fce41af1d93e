"""Which layers of a network compute in int8, and the rewriting of its graphs to that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from dmcodec.export.weights import TAPS

from .conv import Range, quantize_conv
from .lstm import quantize_lstm
from .nodes import Rewriting
from .storage import stored_narrow

CONV, LSTM = "Conv", "LSTM"
# Rounding a value with a step for each channel takes as long as so many multiply-adds in float32 (ONNX Runtime 1.32, an
# x86 CPU with AVX-512 and VNNI).
ROUNDING = 84.0


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer that can compute in int8.

    Attributes:
        weight: name of its first weight, the same in all graphs.
        op_type: CONV or LSTM.
        source: range of its input; None where that is within -1 and 1.
        result: range of a convolution's output.
        gain: multiply-adds that int8 saves in a second of audio: those of the layer, less ROUNDING for each value of a
            convolution's input and output.
    """

    weight: str
    op_type: str
    source: Range | None
    result: Range | None
    gain: float

    @property
    def name(self) -> str:
        """The layer's name, without that of the weight; of an LSTM with the index of its layer."""
        name, _, part = self.weight.rpartition(".")
        return f"{name}.{part.rpartition('_')[2]}" if self.op_type == LSTM else name


@dataclasses.dataclass(frozen=True)
class Int8Plan:
    """The layers that compute in int8, by their weights.

    Attributes:
        layers: by the names of their first weights.
        stores_narrow: the weights of the other layers are stored in narrower types.
        eight_bits: large weights of those are stored in 8 bits; else all of them in float16.
        means: mean of each channel of the input of convolutions, by their weights: the bias takes over what the
            rounding of the weight does to it.
    """

    layers: Mapping[str, Layer]
    stores_narrow: bool = True
    eight_bits: bool = True
    means: Mapping[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)

    def apply(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return a graph in which these layers are in int8."""
        rewriting = Rewriting(model)
        narrow = self._stored_narrow(rewriting, model) if self.stores_narrow else {}
        for node in rewriting.nodes():
            layer = self.layers.get(node.input[1]) if len(node.input) > 1 else None
            if layer is None:
                rewriting.keep(_with_inputs(node, narrow))
            elif layer.op_type == LSTM:
                quantize_lstm(rewriting, node, None if layer.source is None else _bounds(layer.source))
            else:
                assert layer.source is not None
                assert layer.result is not None
                quantize_conv(rewriting, node, layer.source, layer.result, self.means.get(layer.weight))
        return rewriting.finish()

    def _stored_narrow(self, rewriting: Rewriting, model: onnx.ModelProto) -> dict[str, str]:
        """Store the weights of the other layers narrower; return the tensors that take their places.

        They are known by their names, since graphs in steps have convolutions as matrix products: the same weight is
        the same in all graphs, and so are their results.
        """
        tensors: dict[str, str] = {}
        for name in (item.name for item in model.graph.initializer if _is_of_convolution(item.name)):
            if name in self.layers:
                continue
            tensors[name], rounded = stored_narrow(rewriting, name, self.eight_bits)
            mean = self.means.get(name)
            if mean is not None:
                lost = (rewriting.values(name) - rounded).astype(np.float64).sum(axis=2) @ mean
                bias_name = f"{name.rpartition('.')[0]}.bias"
                bias = rewriting.values(bias_name)
                rewriting.store(bias_name, (bias + lost).astype(bias.dtype))
        for node in rewriting.nodes():
            if node.op_type == LSTM and node.input[1] not in self.layers:
                for name in node.input[1:3]:
                    # The graph of one direction takes half of a weight, and so has to find it as it is: not in 8 bits.
                    tensors[name], _ = stored_narrow(rewriting, name, eight_bits=False)
        return tensors


def _is_of_convolution(name: str) -> bool:
    """Return whether a weight is that of a convolution, by its name."""
    return name.endswith((".weight", f".{TAPS}"))


def _with_inputs(node: onnx.NodeProto, tensors: Mapping[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [tensors.get(name, name) for name in node.input]
    return copy


def _bounds(source: Range) -> NDArray[np.float32]:
    """Return the largest absolute value of each channel; a channel that is 0 keeps a range."""
    largest = np.maximum(-source.low, source.high)
    floor = max(float(largest.max()), 1.0) * 1e-4
    return np.maximum(largest, np.float32(floor)).astype(np.float32)
